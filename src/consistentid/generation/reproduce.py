"""A portrait made again from its record, bit for bit on the same machine."""

from pathlib import Path

from consistentid.devices import torch_threads
from consistentid.errors import NotReproducible
from consistentid.generation.callbacks import Cancel, Stop, as_cancel
from consistentid.generation.donors import Donors, Photo
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait
from consistentid.generation.request import GenerationRequest, PreparedRequest, Shot
from consistentid.generation.settings import DonorRecord, PortraitSettings


def reproduce(
    generator: PortraitGenerator,
    record: PortraitSettings,
    *,
    photo: Photo | None = None,
    donors: Donors | None = None,
    cancel: Cancel | Stop | None = None,
) -> Portrait:
    """Make a portrait again.

    The image is put at its place in a batch of the recorded shape, because the order of additions depends on the
    shape; the other rows are copies, because rows do not see each other.

    Args:
        generator: loaded with the record's model, adapter, device and dtype.
        record: from `portrait.read_settings`.
        photo: the photo, when it is not where it was.
        donors: likewise the photos of others.
        cancel: as in `PortraitGenerator.generate`.

    Raises:
        NotReproducible: photo, analysis, weights or dtype differ, or the record does not hold all inputs.
    """
    _check_model(generator, record)
    source = _found(photo, record.photo)
    others = _donors(donors or Donors(), record)
    with torch_threads(record.threads):
        prepared = generator.prepare(
            GenerationRequest(source, record.prompt, record.request_settings(), task=record.task, donors=others)
        )
        _check_photo(prepared, record)
        for now, then in zip(prepared.donors, record.donors, strict=True):
            _check_photo(now, then)
        batch = [Shot(prepared, record.index)] * record.batch_size
        rendered = generator.renderer.run(batch, cancelled=as_cancel(cancel))[record.batch_position]
        return Portrait(
            record.model_copy(
                update={"photo": prepared.photo, "donors": prepared.donors, "left_out": prepared.left_out}
            ),
            rendered.picture,
            withheld=rendered.withheld,
            marking=generator.renderer.marking,
        )


def _check_model(generator: PortraitGenerator, record: PortraitSettings) -> None:
    if not record.made_here:
        raise NotReproducible(
            f"the portrait was made by task {record.task!r} or from given latents, which its record does not hold"
        )
    dtype = str(generator.pipeline.unet.dtype).removeprefix("torch.")
    if dtype != record.dtype:
        raise NotReproducible(f"the portrait was made with {record.dtype} weights, these are {dtype}")
    if generator.weights_sha256 != record.weights_sha256:
        raise NotReproducible(
            f"the weights of {record.model!r} are not those the portrait was made with "
            f"({generator.weights_sha256[:12]} instead of {record.weights_sha256[:12]})"
        )


def _donors(given: Donors, record: PortraitSettings) -> Donors:
    """The photos of others where they are now, those with the same role in the record's order."""
    now: dict[str, list[Photo]] = {}
    for role, photo in given.by_role():
        now.setdefault(role, []).append(photo)
    moved = ((one, now.get(one.role)) for one in record.donors)
    return Donors.of_roles([(one.role, _found(photos.pop(0) if photos else None, one.photo)) for one, photos in moved])


def _found(given: Photo | None, recorded: str | None) -> Photo:
    """A photo where it is now."""
    source = recorded if given is None else given
    if source is None:
        raise NotReproducible("the portrait was made from a photo in memory; give the photo as well")
    if isinstance(source, str) and not Path(source).is_file():
        raise NotReproducible(f"the photo is no longer at {source}; say where it is now")
    return source


def _check_photo(now: PreparedRequest | DonorRecord, then: PortraitSettings | DonorRecord) -> None:
    where = now.photo or "the photo"
    if now.photo_sha256 != then.photo_sha256:
        raise NotReproducible(f"{where} is not the photo the portrait was made from; its pixels differ")
    if now.analysis_sha256 != then.analysis_sha256:
        raise NotReproducible(
            f"the face in {where} is analysed differently than when the portrait was made; use the same face models"
        )
