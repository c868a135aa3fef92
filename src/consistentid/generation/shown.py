"""Refusal to control a region that has no token, with whose photo it is and why."""

from collections.abc import Sequence
from pathlib import Path

from consistentid.errors import InvalidSettings
from consistentid.generation.donors import BESIDE, Gathered
from consistentid.generation.embeddings import Embeddings
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.conditioner import Conditioner, Face
from consistentid.identity.control import without_token
from consistentid.identity.mixing import MixedFace, as_mixed
from consistentid.identity.reference import reference_images


def check_everybody(
    people: Gathered,
    embeddings: Sequence[Embeddings],
    settings: GenerationSettings,
    *,
    photo: str | None,
    conditioner: Conditioner,
) -> None:
    """Refuse to weigh or schedule a region that one of the people in a picture has no token for.

    Args:
        people: of the picture.
        embeddings: of each of them.
        settings: complete ones.
        photo: path of the first one's, None when it came from memory.
        conditioner: made the embeddings.

    Raises:
        InvalidSettings: as in `check_shown`.
    """
    everybody = (people, *people.beside)
    paths = [photo, *(record.photo for record in people.records if record.role == BESIDE)]
    for number, (person, path, one) in enumerate(zip(everybody, paths, embeddings, strict=True), start=1):
        whose = f" of person {number}" if len(everybody) > 1 else ""
        check_shown(person.face, one, settings, conditioner=conditioner, whose=whose, photo=path)


def check_shown(
    face: Face,
    embeddings: Embeddings,
    settings: GenerationSettings,
    *,
    conditioner: Conditioner,
    whose: str = "",
    photo: str | None = None,
) -> None:
    """Refuse to weigh or schedule a region that has no token.

    Args:
        face: of one person.
        embeddings: of the face.
        settings: complete ones.
        conditioner: made the embeddings.
        whose: says in a message which person it is, such as ` of person 2`.
        photo: path of the photo.

    Raises:
        InvalidSettings: there is nothing to weigh; the message says whose photo it is, and the cause.
    """
    name = without_token(settings.control, embeddings.conditioning.regions[0], reworded=settings.words)
    if name is None:
        return
    mixed = as_mixed(face)
    if settings.regions is not None and name not in settings.regions:
        why = "the setting regions leaves it out"
    elif not _is_shown(mixed, name, conditioner):
        why = _not_shown(mixed, name, whose, photo)
    elif _has_word(mixed, name, settings, conditioner):
        why = f"prompt and caption{whose} are so long that its word was cut off"
    else:
        why = f"the caption{whose} does not name it"
    raise InvalidSettings(f"{name} cannot be controlled: {why}")


def _is_shown(face: MixedFace, name: str, conditioner: Conditioner) -> bool:
    quirks = conditioner.adapter.config.quirks
    return any(name in reference_images(photo, quirks).regions for photo, _ in face.shares(name))


def _not_shown(face: MixedFace, name: str, whose: str, path: str | None) -> str:
    if len(face.usual) > 1:
        return f"no photo{whose} shows {name}"
    if path is None:
        return f"the photo{whose} shows no {name}"
    return f"{Path(path).name}, the photo{whose}, shows no {name}" if whose else f"{Path(path).name} shows no {name}"


def _has_word(face: MixedFace, name: str, settings: GenerationSettings, conditioner: Conditioner) -> bool:
    """Whether the caption names a region when no prompt is before it."""
    alone = conditioner.facial_prompt("", face, regions=[name], caption=settings.caption, words=settings.words)
    return name in alone.marked_regions
