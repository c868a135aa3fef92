"""Face detection, 5 landmarks and the identity embedding, behind one protocol; dlib's is the default."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from consistentid.errors import WeightsNotFound

_DETECTION_SIDE = 800  # px; larger photos are shrunk before dlib looks at them
_SMALL_FACE_SIDE = 1600  # px; where dlib looks for small faces when it found none
# dlib's own second detector is its CNN; where both find nothing, HOG looks for small faces.
DLIB_LOOKS = {
    "hog": ("hog", _DETECTION_SIDE),
    "cnn": ("cnn", _DETECTION_SIDE),
    "small": ("hog", _SMALL_FACE_SIDE),
}
_LARGEST_ZOOM = 4.0  # and a small photo is enlarged at most so much
_NARROWEST = 24  # px; nothing fits into less, and dlib's CNN fails on it


@dataclass(frozen=True)
class DetectedFace:
    """One face in a photo.

    Attributes:
        box: left, top, right, bottom in pixels.
        landmarks: (5, 2) x and y in pixels: left eye, right eye, nose, left and right mouth corner; left and right
            are the viewer's.
        identity_embedding: (d,) the recogniser's output, scaled as the recogniser gives it.
        score: the detector's confidence; larger is surer, scales differ between detectors.
        mouth_measured: whether the mouth corners were seen; if not, they follow from a mean face.
    """

    box: tuple[float, float, float, float]
    landmarks: Float[np.ndarray, "5 2"]
    identity_embedding: Float[np.ndarray, " d"]
    score: float
    mouth_measured: bool = True

    @property
    def size(self) -> float:
        """Side of the box in pixels: the mean of width and height."""
        return (self.box[2] - self.box[0] + self.box[3] - self.box[1]) / 2


class FaceDetector(Protocol):
    """Finds every face of a photo, with landmarks and identity embedding."""

    name: str
    embedding_dim: int

    def detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """Faces of an RGB photo, the largest first; an empty list when there is none."""
        ...


def dlib_weights(name: str) -> Path:
    """Path of a weight file of the package face-recognition-models, which is not imported (it needs old setuptools).

    Raises:
        WeightsNotFound: the package or the file is not installed.
    """
    spec = find_spec("face_recognition_models")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "models" / name
        if path.is_file():
            return path
    raise WeightsNotFound(f"{name} is not installed; run `pip install face-recognition-models==0.3.0`")


class DlibDetector:
    """dlib: HOG detector, then its CNN detector; 5 points; 128-d embedding. Offline, no compiler, weights CC0.

    Args:
        looks: which entries of `DLIB_LOOKS`, one after the other until one finds something; by default all.
    """

    embedding_dim = 128

    def __init__(self, *looks: str) -> None:
        self.name = " ".join(["dlib", *looks])
        self.looks = [DLIB_LOOKS[look] for look in looks or DLIB_LOOKS]

    @cached_property
    def _hog(self) -> Any:
        import dlib

        return dlib.get_frontal_face_detector()

    @cached_property
    def _cnn(self) -> Any:
        import dlib

        return dlib.cnn_face_detection_model_v1(str(dlib_weights("mmod_human_face_detector.dat")))

    @cached_property
    def _points(self) -> Any:
        import dlib

        return dlib.shape_predictor(str(dlib_weights("shape_predictor_5_face_landmarks.dat")))

    @cached_property
    def _recogniser(self) -> Any:
        import dlib

        return dlib.face_recognition_model_v1(str(dlib_weights("dlib_face_recognition_resnet_model_v1.dat")))

    def detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """See `FaceDetector.detect`."""
        return largest_first(self._describe(photo, rectangle, score) for rectangle, score in self._rectangles(photo))

    def _rectangles(self, photo: np.ndarray) -> list[tuple[Any, float]]:
        for name, side in self.looks:
            found = self._look(photo, name, side)
            if found:
                return found
        return []

    def _look(self, photo: np.ndarray, detector: str, side: int) -> list[tuple[Any, float]]:
        import dlib
        from PIL import Image

        longest = max(photo.shape[:2])
        scale = min(1.0 if side == _DETECTION_SIDE else _LARGEST_ZOOM, side / longest)
        seen = photo
        if scale != 1:
            size = (max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale)))
            seen = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))
        if min(seen.shape[:2]) < _NARROWEST:
            return []
        upsampling = 1 if max(seen.shape[:2]) <= 400 else 0
        if detector == "hog":
            rectangles, scores, _ = self._hog.run(seen, upsampling, 0.0)
            found = list(zip(rectangles, scores, strict=True))
        else:
            found = [(mmod.rect, mmod.confidence) for mmod in self._cnn(seen, upsampling)]
        return [
            (dlib.rectangle(*(round(v / scale) for v in (r.left(), r.top(), r.right(), r.bottom()))), float(score))
            for r, score in found
        ]

    def _describe(self, photo: np.ndarray, rectangle: Any, score: float) -> DetectedFace:
        shape = self._points(photo, rectangle)
        points = np.array([(point.x, point.y) for point in shape.parts()], np.float32)
        embedding = np.array(self._recogniser.compute_face_descriptor(photo, shape), np.float32)
        box = tuple(float(v) for v in (rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()))
        return DetectedFace(box, _with_mouth(points), embedding, score, mouth_measured=False)  # type: ignore[arg-type]


def _with_mouth(points: np.ndarray) -> np.ndarray:
    """Canonical 5 landmarks from dlib's 5 (eye corners of the viewer's right, then left eye, then the nose base).

    dlib's small model has no mouth; its corners are placed by the proportions of a mean face, and the analyzer
    moves them to the parser's lips when it finds them.
    """
    right, left, nose = points[0:2].mean(0), points[2:4].mean(0), points[4]
    down = nose - (left + right) / 2
    mouth, half = nose + 0.55 * down, 0.38 * (right - left)
    return np.stack([left, right, nose, mouth - half, mouth + half]).astype(np.float32)


def largest_first(faces: Iterable[DetectedFace]) -> list[DetectedFace]:
    """Faces in the order that `FaceDetector.detect` promises."""
    return sorted(faces, key=lambda face: face.size, reverse=True)
