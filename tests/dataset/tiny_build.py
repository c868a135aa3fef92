"""Builds a dataset with models that need no weights: `python tiny_build.py IN OUT here|ray [seconds a photo]`.

A script, because processes are killed here: by the tests, and by photos that are wholly red.
"""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from consistentid.dataset.builder import build_dataset
from consistentid.dataset.captions import TemplateCaptioner
from consistentid.dataset.engine import RayOptions
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.stages import Stages
from consistentid.faces.detection import DetectedFace

SETTINGS = BuildSettings(chunk=3, caption_batch=2, shard_rows=7)


class TinyDetector:
    """One face in every photo that is not black; two photos are alike when their pixels are."""

    name = "dlib"
    embedding_dim = 64

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def detect(self, photo: np.ndarray) -> list[DetectedFace]:
        time.sleep(self.seconds)
        if not photo.any():
            return []
        if (photo.mean((0, 1)) == (255, 0, 0)).all():
            os.kill(os.getpid(), signal.SIGKILL)
        height, width = photo.shape[:2]
        landmarks = np.array([(0.35, 0.4), (0.65, 0.4), (0.5, 0.55), (0.38, 0.7), (0.62, 0.7)]) * (width, height)
        blocks = photo[: height // 8 * 8, : width // 8 * 8].mean(2).reshape(8, height // 8, 8, width // 8).mean((1, 3))
        embedding = (blocks - blocks.mean()).ravel()
        embedding = (embedding / max(1e-6, float(np.linalg.norm(embedding)))).astype(np.float32)
        box = (0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height)
        return [DetectedFace(box, landmarks.astype(np.float32), embedding, 1.0)]


class TinyParser:
    """Skin, with a nose in the middle."""

    name = "tiny"

    def parse(self, photo: np.ndarray, face: DetectedFace) -> np.ndarray:
        labels = np.ones(photo.shape[:2], np.uint8)
        labels[labels.shape[0] // 2] = 10
        return labels


def stages(settings: BuildSettings = SETTINGS, *, seconds: float = 0.0) -> Stages:
    return Stages(TinyDetector(seconds), TinyParser(), TemplateCaptioner(), settings)


if __name__ == "__main__":
    photos, out, engine, *seconds = sys.argv[1:]
    import tiny_build  # by name, so that other processes find it too

    make = partial(tiny_build.stages, seconds=float(seconds[0]) if seconds else 0.0)
    ray = RayOptions(workers=2) if engine == "ray" else None
    build_dataset([Path(photos)], Path(out), settings=SETTINGS, ray=ray, stages=make)
