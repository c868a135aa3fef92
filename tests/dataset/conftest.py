"""Photos that look like nothing, and records."""

import importlib.util
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from consistentid.dataset.record import FGIDRecord, Quality

QUALITY = Quality(faces=1, face_px=80.5, sharpness=120.0, brightness=0.5, clipped=0.01, yaw=-0.1, roll=2.0)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The image as a file."""
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pattern(seed: int, size: tuple[int, int] = (160, 160)) -> Image.Image:
    """Coloured blocks: sharp, well lit, and unlike those of any other seed."""
    blocks = np.random.default_rng(seed).integers(40, 215, (8, 8, 3), np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def record() -> Callable[[int], FGIDRecord]:
    """Makes a record of a number."""

    def make(number: int) -> FGIDRecord:
        rng = np.random.default_rng(number)
        return FGIDRecord(
            id=f"{number:016x}",
            photo=encoded(pattern(number, (24, 16)), "JPEG"),
            label_map=encoded(Image.new("L", (24, 16), 1 + number % 3)),
            width=24,
            height=16,
            person=f"person {number % 5}",
            source="somewhere",
            licence="CC0-1.0",
            origin=f"{number}.jpg",
            box=(1, 2, 20.5, 15),
            landmarks=((5, 4), (15, 4), (10, 8), (6, 12), (14, 12)),
            identity_embedding=tuple(rng.normal(size=6)),
            recogniser="dlib",
            regions=("face", "nose"),
            caption="A photo.",
            facial_caption="The person has one face – and a nose.",
            gender=("man", "woman", None)[number % 3],
            age=None if number % 2 else number,
            quality=QUALITY,
            perceptual_hash=f"{number:016x}",
        )

    return make


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_build(root: Path) -> ModuleType:
    """The script `tiny_build.py` as a module."""
    return _module(root / "tests" / "dataset" / "tiny_build.py")


@pytest.fixture(scope="session")
def drawn(root: Path) -> ModuleType:
    """`drawn.py` as a module."""
    return _module(root / "tests" / "dataset" / "drawn.py")


@pytest.fixture(scope="session")
def draw_record(drawn: ModuleType) -> Callable[..., FGIDRecord]:
    """Makes a record with a drawn face."""
    return drawn.draw_record


@pytest.fixture(scope="session")
def write_dataset(drawn: ModuleType) -> Callable[[Path, list[list[FGIDRecord]]], Path]:
    """Writes a finished dataset."""
    return drawn.write_dataset


@pytest.fixture(scope="session")
def drawn_dataset(drawn: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos of four people in two shards; nobody may change it."""
    return drawn.drawn_dataset(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """A folder of 20 photos, one of them black and one a small copy."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(18):
        pattern(seed).save(folder / f"{seed:02d}.png")
    Image.new("RGB", (160, 160)).save(folder / "03 black.png")
    pattern(5, (144, 144)).save(folder / "04 small copy.png")
    return folder
