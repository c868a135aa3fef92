"""Photos besides the one of a request: what they give, and how the record names them."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.analyses import AnalysedPhoto
from consistentid.generation.fingerprint import analysis_sha256
from consistentid.generation.settings import DonorRecord, GenerationSettings
from consistentid.identity.conditioner import Face
from consistentid.identity.control import check_parts
from consistentid.identity.mixing import MixedFace, Shares, normalised
from consistentid.identity.several_photos import combined, strangers
from consistentid.images import PhotoSource, load_photo, pixels_sha256

logger = logging.getLogger(__name__)

Photo = PhotoSource | FaceAnalysis
# Roles of another photo of the person, of a second person mixed in, and of one in a place of the same picture.
SAME, BLEND, BESIDE = "same", "blend", "beside"


@dataclass(frozen=True)
class Donors:
    """Photos besides the one of a request; each may be anything that one may be.

    Attributes:
        parts: of who gives single regions, or `identity`, by part.
        blend: of a second person, who is mixed in by the share `GenerationSettings.blend`.
        same: more photos of the same person, combined as `GenerationSettings.combine` says.
        beside: of other people in the same picture, where `GenerationSettings.places` says.
    """

    parts: Mapping[str, Photo] = field(default_factory=dict)
    blend: Photo | None = None
    same: tuple[Photo, ...] = ()
    beside: tuple[Photo, ...] = ()

    def by_role(self) -> Iterator[tuple[str, Photo]]:
        """Every photo and its role, in a fixed order."""
        yield from sorted(self.parts.items(), key=lambda part: part[0])
        if self.blend is not None:
            yield BLEND, self.blend
        yield from ((SAME, photo) for photo in self.same)
        yield from ((BESIDE, photo) for photo in self.beside)

    @classmethod
    def of_roles(cls, photos: "list[tuple[str, Photo]]") -> "Donors":
        """The inverse of `by_role`."""
        return cls(
            {role: photo for role, photo in photos if role not in (BLEND, SAME, BESIDE)},
            dict(photos).get(BLEND),
            tuple(photo for role, photo in photos if role == SAME),
            tuple(photo for role, photo in photos if role == BESIDE),
        )


@dataclass(frozen=True, eq=False)
class Gathered:
    """Everybody of a request.

    Attributes:
        face: whose portrait it is.
        records: of the photos besides the request's own.
        key: what the face depends on.
        beside: the others in the picture, likewise.
        left_out: see `PortraitSettings`.
    """

    face: Face
    records: tuple[DonorRecord, ...]
    key: tuple[object, ...]
    beside: "tuple[Gathered, ...]" = ()
    left_out: tuple[int, ...] = ()


def gather(
    photo: AnalysedPhoto,
    donors: Donors,
    settings: GenerationSettings,
    *,
    analyse: Callable[[Photo], AnalysedPhoto],
) -> Gathered:
    """Analyse the donors of a request and mix the face it asks for.

    Args:
        photo: the request's own.
        donors: of the request.
        settings: complete ones.
        analyse: finds the face in a photo.

    Raises:
        InvalidSettings: a part is unknown, or a share was given without a second person.
        UnreadableImage, NoFaceFound: a photo cannot be used.
    """
    check_parts(donors.parts)
    if settings.blend is not None and donors.blend is None:
        raise InvalidSettings("blend is the share of a second person; give that person's photo too")
    if donors.blend is not None and settings.combine == "concatenate":
        raise InvalidSettings("identity tokens side by side have no shares; combine photos otherwise to blend people")
    found = [(role, analyse(given)) for role, given in donors.by_role()]
    records = tuple(_record(role, one) for role, one in found)
    beside = tuple(Gathered(one.analysis, (), _key(one)) for role, one in found if role == BESIDE)
    if len(beside) == len(found):
        return Gathered(photo.analysis, records, _key(photo), beside)
    own = [photo, *(one for role, one in found if role == SAME)]
    left_out = _strangers(own)
    person = combined([one.analysis for k, one in enumerate(own) if k not in left_out], settings.combine)
    others = {role: one.analysis for role, one in found if role not in (SAME, BESIDE)}
    face = _mixed(person, others, share=settings.blend or 0.0)
    mixed = (record.model_dump_json() for record in records if record.role != BESIDE)
    return Gathered(face, records, (*_key(photo), *mixed, settings.blend, settings.combine), beside, left_out)


def _key(photo: AnalysedPhoto) -> tuple[object, ...]:
    return photo.sha256, analysis_sha256(photo.analysis)


def _strangers(photos: list[AnalysedPhoto]) -> tuple[int, ...]:
    """Which photos of a person show someone else; a warning names each."""
    found = tuple(strangers([one.analysis for one in photos]))
    for k in found:
        path = photos[k].path
        name = f"photo {k + 1}" if path is None else Path(path).name
        logger.warning("%s shows someone else than the other photos and is left out", name)
    return found


def _mixed(person: MixedFace, others: dict[str, FaceAnalysis], *, share: float) -> MixedFace:
    """A person with a share of a second one, and parts of others."""
    second = others.pop(BLEND, None)

    def blended(shares: Shares) -> Shares:
        return normalised(
            [*((face, own * (1 - share)) for face, own in shares), *([(second, share)] if second else [])]
        )

    parts = {part: blended(shares) for part, shares in person.parts.items()}
    return MixedFace(
        blended(person.usual),
        {**parts, **{part: ((face, 1.0),) for part, face in others.items()}},
        side_by_side=person.side_by_side,
    )


def photos_of(donors: Donors) -> tuple[tuple[str, str], ...]:
    """Role and pixels' hash of every photo, before anything is analysed.

    Raises:
        UnreadableImage: a photo cannot be read.
    """
    return tuple((role, pixels_sha256(_pixels(photo))) for role, photo in donors.by_role())


def _pixels(photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
    return photo.photo if isinstance(photo, FaceAnalysis) else np.asarray(load_photo(photo))


def _record(role: str, photo: AnalysedPhoto) -> DonorRecord:
    return DonorRecord(
        role=role, photo=photo.path, photo_sha256=photo.sha256, analysis_sha256=analysis_sha256(photo.analysis)
    )
