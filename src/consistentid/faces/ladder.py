"""Another look where a detector found nothing: by another detector, with a border, tile by tile."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from consistentid.errors import InvalidSettings
from consistentid.faces.detection import DetectedFace, FaceDetector, largest_first

logger = logging.getLogger(__name__)

_BORDER = 0.5  # of the longer side: detectors miss faces that fill the photo
# Detectors shrink what they see to a size of their own (InsightFace to 640 px, dlib to 800 or 1600), so that enlarging
# the photo shows them nothing new; a part of it does.
_TILE = 400  # px; smaller parts show no more
_TILES = 3  # so many sides of a tile are the longer side of a large photo
_OVERLAP = 0.25  # of a tile's side; a face that fits into no overlap is large enough to be found in the whole photo

Look = Callable[[FaceDetector, UInt8[np.ndarray, "h w 3"]], list[DetectedFace]]


class LadderDetector:
    """A detector that does not give up after one look; what the first look finds is left as it is.

    Looks: the photo; the photo with a grey border, for a face that fills it; overlapping tiles of the photo, for faces
    that are small in it. Every detector has a look at the photo before it is changed.

    Args:
        detector: asked first.
        others: asked after it, for the same look; their recognisers must give the same embeddings (InsightFace's
            buffalo_l and UniFace's resnet do).

    Raises:
        InvalidSettings: an embedding of another length.
    """

    def __init__(self, detector: FaceDetector, *others: FaceDetector) -> None:
        self.detectors: Sequence[FaceDetector] = (detector, *others)
        self.name = detector.name
        self.embedding_dim = detector.embedding_dim
        for other in others:
            if other.embedding_dim != detector.embedding_dim:
                raise InvalidSettings(
                    f"{other.name} gives embeddings of {other.embedding_dim} numbers, {detector.name} of "
                    f"{detector.embedding_dim}; an adapter belongs to one recogniser"
                )

    def detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """See `FaceDetector.detect`; places are those in the photo itself."""
        rungs = [(name, look, detector) for name, look in _LOOKS.items() for detector in self.detectors]
        for rung, (name, look, detector) in enumerate(rungs):
            faces = look(detector, photo)
            if faces:
                if rung > 0:
                    logger.info("%s found %d faces in the photo %s", detector.name, len(faces), name)
                return faces
        return []


def _as_it_is(detector: FaceDetector, photo: np.ndarray) -> list[DetectedFace]:
    return detector.detect(photo)


def _with_a_border(detector: FaceDetector, photo: np.ndarray) -> list[DetectedFace]:
    border = round(_BORDER * max(photo.shape[:2]))
    padded = np.pad(photo, ((border, border), (border, border), (0, 0)), constant_values=128)
    return [_moved(face, -border, -border) for face in detector.detect(padded)]


def _in_tiles(detector: FaceDetector, photo: np.ndarray) -> list[DetectedFace]:
    """Faces of all tiles, each once; nothing when the photo is no larger than a tile."""
    height, width = photo.shape[:2]
    side = max(_TILE, -(-max(height, width) // _TILES))
    if max(height, width) <= side:
        return []
    found = [
        _moved(face, left, top)
        for top in _starts(height, side)
        for left in _starts(width, side)
        for face in detector.detect(np.ascontiguousarray(photo[top : top + side, left : left + side]))
    ]
    distinct: list[DetectedFace] = []
    for face in largest_first(found):  # the smaller one may be cut by the border of its tile
        if not any(_is_inside(face, other) for other in distinct):
            distinct.append(face)
    return distinct


_LOOKS: dict[str, Look] = {"as it is": _as_it_is, "with a border": _with_a_border, "in tiles": _in_tiles}


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin, so that neighbours overlap and the last one ends with the photo."""
    if length <= side:
        return [0]
    steps = -(-(length - side) // round((1 - _OVERLAP) * side))
    return [round(index * (length - side) / steps) for index in range(steps + 1)]


def _is_inside(face: DetectedFace, other: DetectedFace) -> bool:
    """Whether the centre of a face lies in the box of another."""
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return other.box[0] <= x <= other.box[2] and other.box[1] <= y <= other.box[3]


def _moved(face: DetectedFace, right: int, down: int) -> DetectedFace:
    """The face so many pixels further to the right and down."""
    box = (face.box[0] + right, face.box[1] + down, face.box[2] + right, face.box[3] + down)
    return replace(face, box=box, landmarks=(face.landmarks + (right, down)).astype(np.float32))
