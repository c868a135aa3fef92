"""Another look where a detector found nothing: with a border, enlarged, by another detector."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.faces.detection import DetectedFace, FaceDetector

logger = logging.getLogger(__name__)

_BORDER = 0.5  # of the longer side: detectors miss faces that fill the photo
_ENLARGED = 2.0  # small faces
_LONGEST = 4000  # px; larger photos are not enlarged


class LadderDetector:
    """A detector that does not give up after one look; what the first look finds is left as it is.

    Looks: the photo; the photo with a grey border, for a face that fills it; the photo enlarged, for a small face;
    then the other detectors in the same way.

    Args:
        detector: asked first.
        others: asked after it; their recognisers must give the same embeddings (InsightFace's buffalo_l and UniFace's
            resnet do).

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
        for detector in self.detectors:
            for look, seen, shift, scale in _looks(photo):
                faces = [_moved(face, shift, scale) for face in detector.detect(seen)]
                if faces:
                    if look != "as it is" or detector is not self.detectors[0]:
                        logger.info("%s found %d faces in the photo %s", detector.name, len(faces), look)
                    return faces
        return []


def _looks(photo: np.ndarray) -> Iterator[tuple[str, np.ndarray, int, float]]:
    """What is looked at: a name, the pixels, the width of their border, and how much they are enlarged."""
    yield "as it is", photo, 0, 1.0
    border = round(_BORDER * max(photo.shape[:2]))
    padded = np.pad(photo, ((border, border), (border, border), (0, 0)), constant_values=128)
    yield "with a border", padded, border, 1.0
    size = (round(photo.shape[1] * _ENLARGED), round(photo.shape[0] * _ENLARGED))
    if max(size) <= _LONGEST:
        yield "enlarged", np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC)), 0, _ENLARGED


def _moved(face: DetectedFace, shift: int, scale: float) -> DetectedFace:
    """The face in the coordinates of the photo itself."""
    if shift == 0 and scale == 1:
        return face
    left, top, right, bottom = ((value - shift) / scale for value in face.box)
    landmarks = ((face.landmarks - shift) / scale).astype(np.float32)
    return replace(face, box=(left, top, right, bottom), landmarks=landmarks)
