"""Every way in which a dataset can be broken is told."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from consistentid.dataset.files import sha256
from consistentid.dataset.manifest import Manifest
from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.validation import validate
from consistentid.errors import InvalidData


def test_a_whole_dataset_has_no_problem(drawn_dataset: Path) -> None:
    seen: list[int] = []
    assert list(validate(drawn_dataset, progress=seen.append)) == []
    assert sum(seen) == 7


def _png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


Draw = Callable[..., FGIDRecord]
Write = Callable[[Path, list[list[FGIDRecord]]], Path]
LABELS = np.zeros((48, 64), np.uint8)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"photo": b"no image"}, "its photo cannot be decoded"),
        ({"photo": _png(np.zeros((48, 60, 3), np.uint8))}, "its photo is RGB, 60 x 48, not RGB, 64 x 48"),
        ({"photo": _png(LABELS)}, "its photo is L, 64 x 48"),
        ({"label_map": b""}, "its label map cannot be decoded"),
        ({"label_map": _png(LABELS[:40])}, "its label map is L, 64 x 40"),
        ({"label_map": _png(LABELS + 19)}, "its label map has the class 19; the last one is 18"),
        ({"label_map": _png(LABELS)}, "its regions are not those"),
        ({"box": (10.0, 10.0, 10.0, 20.0)}, "its box is empty or outside"),
        ({"box": (64.0, 0.0, 90.0, 20.0)}, "its box is empty or outside"),
        ({"landmarks": ((float("nan"), 1.0),) * 5}, "a landmark is no number"),
        ({"identity_embedding": (1.0, 2.0)}, "has 2 numbers, not 4"),
        ({"identity_embedding": (1.0, 2.0, float("inf"), 0.0)}, "its identity embedding is no number"),
        ({"identity_embedding": (0.0,) * 4}, "its identity embedding is no number"),
        ({"recogniser": "uniface"}, "its recogniser is 'uniface'"),
        ({"gender": "none"}, "gender: Input should be 'man' or 'woman'"),
    ],
)
def test_a_broken_record_is_told(
    change: dict[str, object], problem: str, draw_record: Draw, write_dataset: Write, tmp_path: Path
) -> None:
    write_dataset(tmp_path, [[draw_record(1), draw_record(0).model_copy(update=change)]])
    (told,) = validate(tmp_path)
    assert told.startswith("data/00000.parquet, record 1 (0000000000000000): ")
    assert problem in told


def test_ids_are_unique_and_people_counted(draw_record: Draw, write_dataset: Write, tmp_path: Path) -> None:
    write_dataset(tmp_path, [[draw_record(0)], [draw_record(0), draw_record(2)]])
    manifest = Manifest.read(tmp_path)
    manifest.model_copy(update={"people": 5}).write(tmp_path)
    assert list(validate(tmp_path)) == [
        "2 records have the id 0000000000000000",
        "manifest.json says 5 people, the records name 2",
    ]


def test_files_are_those_of_the_manifest(draw_record: Draw, write_dataset: Write, tmp_path: Path) -> None:
    write_dataset(tmp_path, [[draw_record(number)] for number in range(5)])
    first, second, third, fourth, _ = sorted((tmp_path / "data").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    pq.write_table(pq.read_table(third).drop(["age"]), third)
    fourth.write_bytes(b"no table")
    (tmp_path / "data" / "more.parquet").write_bytes(b"")
    manifest = Manifest.read(tmp_path)
    shards = [
        shard.model_copy(update={"bytes": path.stat().st_size, "sha256": sha256(path)})
        if (path := tmp_path / shard.name) in (third, fourth)
        else shard
        for shard in manifest.shards
    ]
    manifest.model_copy(update={"shards": tuple(shards)}).write(tmp_path)
    found = list(validate(tmp_path))
    assert [problem.partition(" (")[0] for problem in found] == [
        "data/00000.parquet: is missing",
        "data/00001.parquet: is not the file that manifest.json names",
        "data/00002.parquet: has other columns than records have",
        "data/00003.parquet: is no Parquet file",
        "data/more.parquet: manifest.json does not name it",
    ]


def test_an_unfinished_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no finished dataset"):
        list(validate(tmp_path))
