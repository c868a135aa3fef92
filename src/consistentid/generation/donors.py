"""Photos besides the one of a request: what they give, and how the record names them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.analyses import AnalysedPhoto
from consistentid.generation.fingerprint import analysis_sha256, photo_sha256
from consistentid.generation.settings import DonorRecord, GenerationSettings
from consistentid.identity.conditioner import Face
from consistentid.identity.control import check_parts
from consistentid.identity.mixing import MixedFace, normalised
from consistentid.images import PhotoSource, load_photo

Photo = PhotoSource | FaceAnalysis
BLEND = "blend"  # role of a second person


@dataclass(frozen=True)
class Donors:
    """Photos besides the one of a request; each may be anything that one may be.

    Attributes:
        parts: of who gives single regions, or `identity`, by part.
        blend: of a second person, who is mixed in by the share `GenerationSettings.blend`.
    """

    parts: Mapping[str, Photo] = field(default_factory=dict)
    blend: Photo | None = None

    def by_role(self) -> Iterator[tuple[str, Photo]]:
        """Every photo and its role, in a fixed order."""
        yield from sorted(self.parts.items(), key=lambda part: part[0])
        if self.blend is not None:
            yield BLEND, self.blend

    @classmethod
    def of_roles(cls, photos: "list[tuple[str, Photo]]") -> "Donors":
        """The inverse of `by_role`."""
        return cls({role: photo for role, photo in photos if role != BLEND}, dict(photos).get(BLEND))


@dataclass(frozen=True, eq=False)
class Gathered:
    """Everybody of a request.

    Attributes:
        face: whose portrait it is.
        records: of the photos besides the request's own.
        key: what the face depends on.
    """

    face: Face
    records: tuple[DonorRecord, ...]
    key: tuple[object, ...]


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
    found = [(role, analyse(given)) for role, given in donors.by_role()]
    records = tuple(_record(role, one) for role, one in found)
    key = (photo.sha256, analysis_sha256(photo.analysis), *(record.model_dump_json() for record in records))
    if not found:
        return Gathered(photo.analysis, (), key)
    analyses = {role: one.analysis for role, one in found}
    second = analyses.pop(BLEND, None)
    share = settings.blend or 0.0
    usual = normalised([(photo.analysis, 1 - share), *([] if second is None else [(second, share)])])
    face = MixedFace(usual, {part: ((one, 1.0),) for part, one in analyses.items()})
    return Gathered(face, records, (*key, share))


def photos_of(donors: Donors) -> tuple[tuple[str, str], ...]:
    """Role and pixels' hash of every photo, before anything is analysed.

    Raises:
        UnreadableImage: a photo cannot be read.
    """
    return tuple((role, photo_sha256(_pixels(photo))) for role, photo in donors.by_role())


def _pixels(photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
    return photo.photo if isinstance(photo, FaceAnalysis) else np.asarray(load_photo(photo))


def _record(role: str, photo: AnalysedPhoto) -> DonorRecord:
    return DonorRecord(
        role=role, photo=photo.path, photo_sha256=photo.sha256, analysis_sha256=analysis_sha256(photo.analysis)
    )
