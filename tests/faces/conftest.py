"""Real photos and a drawn face."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from consistentid.faces.detection import DetectedFace, DlibDetector
from consistentid.images import load_photo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def parity_inputs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_inputs", ROOT / "tests/fixtures/parity/fixtures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def woman() -> Image.Image:
    return load_photo(ROOT / "examples/photos/synthetic-woman.jpg")


@pytest.fixture(scope="session")
def man() -> Image.Image:
    return load_photo(ROOT / "examples/photos/official-man.jpg")


@pytest.fixture(scope="session")
def dlib_detector() -> DlibDetector:
    return DlibDetector()


@pytest.fixture(scope="session")
def drawn_face(parity_inputs: ModuleType) -> tuple[np.ndarray, np.ndarray, DetectedFace]:
    """A drawn photo of 256 px, its label map, and where its face is."""
    photo, label_map, identity = parity_inputs.face_inputs(256)
    points = np.array([[100, 118], [156, 118], [128, 160], [110, 184], [146, 184]], np.float32)
    return photo, label_map, DetectedFace((59, 41, 197, 225), points, identity, 1.0, mouth_measured=False)
