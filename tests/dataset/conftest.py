"""A small dataset of drawn people, and photos of patterns for builds."""

import importlib.util
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from consistentid.dataset.files import sha256
from consistentid.dataset.manifest import Counts, Manifest, ShardFile
from consistentid.dataset.record import FGIDRecord, Quality
from consistentid.dataset.shards import write_shard
from consistentid.faces.regions import region_masks

DrawRecord = Callable[..., FGIDRecord]
WriteDataset = Callable[[Path, list[list[FGIDRecord]]], Path]


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _draw(number: int = 0, *, ears: bool = True, size: tuple[int, int] = (64, 48), **changes: object) -> FGIDRecord:
    """A record of a face of 24 px; `number` chooses colour and id."""
    width, height = size
    labels = np.zeros((height, width), np.uint8)
    labels[8:32, 16:40] = 1
    labels[14:17, 20:25], labels[14:17, 31:36], labels[18:24, 26:30], labels[26:28, 22:34] = 4, 5, 10, 12
    if ears:
        labels[14:20, 14:16], labels[14:20, 40:42] = 7, 8
    photo = np.full((height, width, 3), 40 + number * 9 % 200, np.uint8)
    photo[labels > 0] = (200, 150, 120)
    values = {
        "id": f"{number:016x}",
        "photo": _encoded(photo, "JPEG" if number % 2 else "PNG"),
        "label_map": _encoded(labels, "PNG"),
        "width": width,
        "height": height,
        "person": f"person-{number // 2}",
        "source": "drawn",
        "licence": "CC0-1.0",
        "origin": f"{number}.png",
        "box": (16.0, 8.0, 40.0, 32.0),
        "landmarks": ((22.5, 15.5), (33.5, 15.5), (28.0, 22.0), (22.0, 27.0), (34.0, 27.0)),
        "identity_embedding": tuple((np.arange(4) + number).tolist()),
        "recogniser": "dlib hog",
        "regions": tuple(region_masks(labels)),
        "caption": f"A photo of person {number}.",
        "facial_caption": "The person has one nose.",
        "gender": None,
        "age": None,
        "quality": Quality(faces=1, face_px=24, sharpness=100, brightness=0.6, clipped=0, yaw=0, roll=0),
        "perceptual_hash": f"{number:016x}",
    }
    return FGIDRecord.model_validate(values | changes)


def _write(folder: Path, shards: list[list[FGIDRecord]]) -> Path:
    files = []
    for number, records in enumerate(shards):
        path = folder / "data" / f"{number:05}.parquet"
        write_shard(records, path)
        files.append(
            ShardFile(name=f"data/{path.name}", rows=len(records), bytes=path.stat().st_size, sha256=sha256(path))
        )
    rows = sum(len(records) for records in shards)
    Manifest(
        made_by="0",
        sources=("drawn",),
        fingerprint="0" * 64,
        settings={},
        recogniser="dlib hog",
        identity_dim=4,
        parser="segformer",
        captioner="measured",
        counts=Counts(items=rows + 3, accepted=rows, rejected={"no_face": 2}, duplicates=1, ignored=4),
        people=len({record.person for records in shards for record in records}),
        shards=tuple(files),
    ).write(folder)
    return folder


@pytest.fixture(scope="session")
def draw_record() -> DrawRecord:
    return _draw


@pytest.fixture(scope="session")
def write_dataset() -> WriteDataset:
    return _write


@pytest.fixture(scope="session")
def drawn_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos of four people in two shards; nobody may change it."""
    records = [
        _draw(0, gender="man", age=41),
        _draw(1, gender="man", age=49),
        _draw(2, gender="woman", ears=False),
        _draw(3, size=(80, 60)),
        _draw(4, licence="MIT", source="other"),
        _draw(5, licence="MIT", age=20),
        _draw(6, ears=False),
    ]
    return _write(tmp_path_factory.mktemp("drawn"), [records[:4], records[4:]])


@pytest.fixture(scope="session")
def tiny_build(root: Path) -> ModuleType:
    """The script `tiny_build.py` as a module."""
    spec = importlib.util.spec_from_file_location("tiny_build", root / "tests" / "dataset" / "tiny_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pattern(seed: int, side: int = 160) -> Image.Image:
    """Coloured blocks: sharp, well lit, and unlike those of any other seed."""
    blocks = np.random.default_rng(seed).integers(40, 215, (8, 8, 3), np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """A folder of 20 photos, one of them black and one a small copy of another."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(18):
        _pattern(seed).save(folder / f"{seed:02d}.png")
    Image.new("RGB", (160, 160)).save(folder / "03 black.png")
    _pattern(5, 144).save(folder / "04 small copy.png")
    return folder
