"""Records -> Parquet -> records."""

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from consistentid.dataset.files import sha256
from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.schema import SCHEMA
from consistentid.dataset.shards import IMAGES, ROW_GROUP, FGIDDataset, write_shard
from consistentid.errors import InvalidData

Make = Callable[[int], FGIDRecord]
_SIZES = (70, 5)


@pytest.fixture
def record(draw_record: Callable[..., FGIDRecord]) -> Make:
    """Makes a record of a number; every second one states no age."""

    def make(number: int) -> FGIDRecord:
        embedding = np.random.default_rng(number).normal(size=6).tolist()
        return draw_record(number, age=None if number % 2 else number, identity_embedding=embedding)

    return make


@pytest.fixture
def dataset(tmp_path: Path, record: Make, write_dataset: Callable[..., Path]) -> Path:
    records = [record(number) for number in range(sum(_SIZES))]
    return write_dataset(tmp_path, [records[: _SIZES[0]], records[_SIZES[0] :]])


def test_records_come_back_from_anywhere(dataset: Path, record: Make) -> None:
    opened = FGIDDataset.open(dataset, verify=True)
    assert len(opened) == sum(_SIZES)
    for index in (74, 0, 31, 32, 69, 70, -1, -75):
        assert opened[index] == record(index % 75)
    assert list(opened) == [record(number) for number in range(75)]
    copy = ForkingPickler.loads(ForkingPickler.dumps(opened))
    assert copy[40] == record(40)
    for index in (75, -76):
        with pytest.raises(IndexError):
            opened[index]


def test_what_a_record_shows(record: Make) -> None:
    one = record(0)
    assert one.open_photo().size == (64, 48)
    assert one.open_label_map().shape == (48, 64)
    assert tuple(one.region_masks()) == one.regions
    assert one.identity.dtype == np.float32
    assert one.identity.tolist() == list(one.identity_embedding)


def test_columns_are_read_without_photos(dataset: Path, record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FGIDDataset.open(dataset)
    read = pq.ParquetFile.read
    asked: list[str] = []
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda self, columns, **kw: asked.extend(columns) or read(self, columns, **kw)
    )
    records = [record(number) for number in range(75)]
    assert opened.column("person") == [each.person for each in records]
    assert opened.column("age") == [each.age for each in records]
    assert opened.column("regions") == [list(each.regions) for each in records]
    np.testing.assert_array_equal(opened.column("identity_embedding"), [each.identity for each in records])
    np.testing.assert_array_equal(opened.column("landmarks"), [each.landmarks for each in records])
    np.testing.assert_array_equal(opened.column("quality.sharpness"), [100.0] * 75)
    assert not set(asked) & set(IMAGES)
    for name in ("eyes", "quality.eyes", "id.eyes"):
        with pytest.raises(InvalidData, match="no column"):
            opened.column(name)


def test_batches(dataset: Path) -> None:
    opened = FGIDDataset.open(dataset)
    tables = list(opened.batches(30, columns=["id"]))
    assert sum(table.num_rows for table in tables) == 75
    assert tables[0].column_names == ["id"]
    assert next(opened.batches(8)).schema == SCHEMA


def test_the_same_records_give_the_same_bytes_in_small_row_groups(tmp_path: Path, record: Make) -> None:
    for name in ("a", "b"):
        write_shard([record(number) for number in range(40)], tmp_path / name)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    metadata = pq.ParquetFile(tmp_path / "a").metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [ROW_GROUP, 8]
    group = metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert {name for name, column in columns.items() if column.compression == "UNCOMPRESSED"} == set(IMAGES)
    assert {column.compression for name, column in columns.items() if name not in IMAGES} == {"ZSTD"}


def test_a_shard_that_cannot_be_finished_leaves_nothing(tmp_path: Path, record: Make) -> None:
    def failing() -> object:
        yield record(1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_shard(failing(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_what_was_changed_is_told(dataset: Path) -> None:
    with pytest.raises(InvalidData, match="no finished dataset"):
        FGIDDataset.open(dataset / "none")
    shard = dataset / "data" / "00001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    FGIDDataset.open(dataset)
    with pytest.raises(InvalidData, match=r"00001\.parquet is not the file"):
        FGIDDataset.open(dataset, verify=True)
    shard.write_bytes(content[:-1])
    with pytest.raises(InvalidData, match=r"00001\.parquet is not the file"):
        FGIDDataset.open(dataset)
    shard.unlink()
    with pytest.raises(InvalidData, match="missing"):
        FGIDDataset.open(dataset)
    manifest = dataset / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(InvalidData, match="format 2"):
        FGIDDataset.open(dataset)
    manifest.write_text(text.replace('"accepted": 75', '"accepted": 74'))
    with pytest.raises(InvalidData, match="add up"):
        FGIDDataset.open(dataset)
    manifest.write_text(text[:-20])
    with pytest.raises(InvalidData, match="malformed"):
        FGIDDataset.open(dataset)


def test_records_refuse_unknown_regions(record: Make) -> None:
    with pytest.raises(ValidationError, match="chin: no region"):
        FGIDRecord.model_validate(record(1).model_dump() | {"regions": ("chin",)})
