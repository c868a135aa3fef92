"""Face detection, 5 landmarks and the identity embedding, behind one protocol."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from consistentid.errors import WeightsNotFound
from consistentid.faces.packs import find_pack

_DETECTION_SIDE = 800  # px; larger photos are shrunk before dlib looks at them
_SMALL_FACE_SIDE = 1600  # px; where dlib looks for small faces when it found none
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
    """dlib: HOG detector, then its CNN detector; 5 points; 128-d embedding. Offline, no compiler, weights CC0."""

    name = "dlib"
    embedding_dim = 128

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
        """See `FaceDetector.detect`.

        Three looks, until one finds something: HOG and the CNN at 800 px, then HOG at up to 1600 px for small faces.
        """
        return _largest_first(self._describe(photo, rectangle, score) for rectangle, score in self._rectangles(photo))

    def _rectangles(self, photo: np.ndarray) -> list[tuple[Any, float]]:
        for name, side in (("hog", _DETECTION_SIDE), ("cnn", _DETECTION_SIDE), ("hog", _SMALL_FACE_SIDE)):
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


class InsightFaceDetector:
    """SCRFD and ArcFace of an InsightFace model pack; 512-d embedding of length 1.

    The released ConsistentID checkpoints were trained with the pack buffalo_l, whose weights may be used for
    non-commercial research only.

    Args:
        pack: name of the pack, a folder below `root`/models.
        root: where packs are kept.
        channel_order: what the recogniser is given. It was trained on "bgr"; the released SD 1.5 demo sends "rgb".
        providers: onnxruntime's execution providers.
        offline: never download the pack.
    """

    name = "insightface"
    embedding_dim = 512

    def __init__(
        self,
        pack: str = "buffalo_l",
        *,
        root: str | Path = "~/.insightface",
        channel_order: Literal["bgr", "rgb"] = "bgr",
        providers: Sequence[str] = ("CPUExecutionProvider",),
        offline: bool = False,
    ) -> None:
        self.pack = pack
        self.root = Path(root).expanduser()
        self.channel_order = channel_order
        self.providers = list(providers)
        self.offline = offline

    @cached_property
    def _app(self) -> Any:
        try:
            from insightface.app import FaceAnalysis
        except ImportError as error:
            raise _not_installed("insightface", error) from error
        found = find_pack(self.root, self.pack)
        if self.offline and not any(found.folder.glob("*.onnx")):
            raise WeightsNotFound(f"no InsightFace pack in {found.folder}; unpack {self.pack}.zip there")
        try:
            app = FaceAnalysis(
                name=found.name,
                root=str(self.root),
                allowed_modules=["detection", "recognition"],
                providers=self.providers,
            )
        except AssertionError as error:  # how InsightFace says that a pack has no detector
            raise WeightsNotFound(f"{found.folder} holds no face detector; unpack {self.pack}.zip again") from error
        app.prepare(ctx_id=0, det_size=(640, 640))
        return app

    def detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """See `FaceDetector.detect`."""
        seen = _bgr(photo) if self.channel_order == "bgr" else np.ascontiguousarray(photo)
        return _largest_first(
            DetectedFace(
                box=_box(found.bbox),
                landmarks=np.asarray(found.kps, np.float32),
                identity_embedding=np.asarray(found.normed_embedding, np.float32),
                score=float(found.det_score),
            )
            for found in self._app.get(seen)
        )


class UnifaceDetector:
    """RetinaFace and ArcFace of the package uniface (MIT code, version 4 or newer); 512-d embedding of length 1.

    Args:
        recogniser: "resnet" is the network of InsightFace's buffalo_l, "mnet" the small one of buffalo_s; embeddings of
            the two cannot be compared.
        providers: onnxruntime's execution providers.
    """

    name = "uniface"
    embedding_dim = 512

    def __init__(
        self,
        *,
        recogniser: Literal["resnet", "mnet"] = "resnet",
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.recogniser = recogniser
        self.providers = list(providers)

    @cached_property
    def _networks(self) -> tuple[Any, Any]:
        try:
            from uniface.constants import ArcFaceWeights
            from uniface.detection import RetinaFace
            from uniface.recognition import ArcFace
        except ImportError as error:
            raise _not_installed("uniface", error) from error
        weights = ArcFaceWeights.RESNET if self.recogniser == "resnet" else ArcFaceWeights.MNET
        return RetinaFace(providers=self.providers), ArcFace(model_name=weights, providers=self.providers)

    def detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """See `FaceDetector.detect`."""
        detector, recogniser = self._networks
        seen = _bgr(photo)
        return _largest_first(
            DetectedFace(
                box=_box(found.bbox),
                landmarks=np.asarray(found.landmarks, np.float32),
                identity_embedding=np.asarray(
                    recogniser.get_normalized_embedding(seen, found.landmarks), np.float32
                ).ravel(),
                score=float(found.confidence),
            )
            for found in detector.detect(seen)
        )


def _largest_first(faces: Iterable[DetectedFace]) -> list[DetectedFace]:
    return sorted(faces, key=lambda face: face.size, reverse=True)


def _bgr(photo: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(photo[..., ::-1])


def _box(corners: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in corners[:4])
    return left, top, right, bottom


def _not_installed(package: str, error: ImportError) -> WeightsNotFound:
    return WeightsNotFound(f'{package} cannot be imported ({error}); run `pip install "consistentid[faces]"`')
