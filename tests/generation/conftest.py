"""One tiny model folder, one generator and one drawn face for all tests of a session."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.loading import load_parts

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
sys.modules["tiny"] = tiny
_spec.loader.exec_module(tiny)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def generator(tiny_model: Path) -> PortraitGenerator:
    return PortraitGenerator.from_pretrained(tiny_model, dtype="float32")


@pytest.fixture(scope="session")
def drawn() -> FaceAnalysis:
    return drawn_face(0)


@pytest.fixture(scope="session")
def other() -> FaceAnalysis:
    return drawn_face(1)


def drawn_face(seed: int, size: int = 160) -> FaceAnalysis:
    """A face of ellipses over a pattern, with a random identity."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    photo = np.stack([0.5 + 0.5 * np.sin((9 + seed) * x), 0.5 + 0.5 * np.cos((7 + seed) * y), x * y], -1)
    labels = np.zeros((size, size), np.uint8)
    for cx, cy, rx, ry, label in (
        (0.5, 0.52, 0.27, 0.36, 1), (0.22, 0.52, 0.05, 0.08, 7), (0.78, 0.52, 0.05, 0.08, 8),
        (0.39, 0.46, 0.06, 0.03, 4), (0.61, 0.46, 0.06, 0.03, 5), (0.5, 0.58, 0.06, 0.09, 10),
        (0.5, 0.705, 0.10, 0.025, 12), (0.5, 0.745, 0.09, 0.03, 13),
    ):  # fmt: skip
        labels[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = label
    identity = np.random.default_rng(seed).standard_normal(128).astype(np.float32)
    return FaceAnalysis.from_parts((photo * 255).astype(np.uint8), labels, identity / np.linalg.norm(identity))


@pytest.fixture
def fresh_generator(tiny_model: Path) -> PortraitGenerator:
    """One that a test may change."""
    parts = load_parts(tiny_model, adapter=None, device=None, dtype="float32", offline=True, analyzer=None)
    return PortraitGenerator(parts.pipeline, parts.adapter, analyzer=parts.analyzer, origin=parts.origin)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
