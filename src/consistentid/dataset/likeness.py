"""How alike identity embeddings are: distances, which mean something else for every recogniser."""

from dataclasses import dataclass

from consistentid.errors import InvalidData


@dataclass(frozen=True)
class Likeness:
    """Euclidean distances between identity embeddings, as the recogniser gives them.

    Attributes:
        copy: between two copies of one photo (compressed again, resized, slightly cropped).
        same: between photos of one person, on average over the pairs of two groups of photos.
        clear: the same, where a person's name is at stake.
    """

    copy: float
    same: float
    clear: float


# dlib's are measured, see `people.cluster` and `duplicates.near_duplicates`. ArcFace's embeddings have length 1: a
# cosine c is the distance sqrt(2 - 2 c); its limits are cosines of 0.7, 0.45 and 0.55, not measured here.
_ARCFACE = Likeness(copy=0.77, same=1.05, clear=0.95)
LIKENESS = {"dlib": Likeness(copy=0.35, same=0.44, clear=0.40), "insightface": _ARCFACE, "uniface": _ARCFACE}


def likeness_of(recogniser: str) -> Likeness:
    """The distances of a recogniser, by the name of the detector it belongs to (`FaceDetector.name`).

    Raises:
        InvalidData: nothing is known of it.
    """
    kind = recogniser.partition(" ")[0]  # "dlib hog" -> dlib
    if kind not in LIKENESS:
        raise InvalidData(
            f"no distances are known for the recogniser {recogniser!r}; add them to consistentid.dataset.likeness"
        )
    return LIKENESS[kind]
