"""Who is it? Recognisers behind one protocol; portraits are judged by at least two of them."""

from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from consistentid.faces.detection import DetectedFace, FaceDetector


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
