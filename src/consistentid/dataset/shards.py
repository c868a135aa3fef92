"""Records <-> Parquet files: written byte for byte the same for the same records, read in any order."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from consistentid.dataset.files import appearing, sha256
from consistentid.dataset.manifest import Manifest
from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.schema import SCHEMA, to_records, to_table
from consistentid.errors import InvalidData, first_line

ROW_GROUP = 32  # records; one is read without the rest of the shard
IMAGES = ("photo", "label_map")  # compressed already
_REPEATED = ("person", "source", "licence", "recogniser", "gender", "gender_estimated", "regions.list.element")
_OPEN_SHARDS = 32
_ROW_GROUPS = 4  # kept in memory: neighbours are read together
Key = TypeVar("Key")
Value = TypeVar("Value")


class ShardWriter:
    """Appends tables to a Parquet file in row groups of `ROW_GROUP` records, however large the tables are.

    Args:
        path: the file.
        schema: `SCHEMA`, or one with further columns.
    """

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA) -> None:
        leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
        self.schema = schema
        self.rows = 0
        self._waiting: list[pa.Table] = []
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression={leaf: "none" if leaf in IMAGES else "zstd" for leaf in leaves},
            use_dictionary=[leaf for leaf in leaves if leaf in _REPEATED],
            write_statistics=[leaf for leaf in leaves if leaf not in IMAGES],
        )

    def write(self, table: pa.Table) -> None:
        """Append records."""
        self.rows += table.num_rows
        self._waiting.append(table)
        if sum(each.num_rows for each in self._waiting) >= ROW_GROUP:
            waiting = pa.concat_tables(self._waiting)
            whole = waiting.num_rows // ROW_GROUP * ROW_GROUP
            self._writer.write_table(waiting.slice(0, whole), row_group_size=ROW_GROUP)
            self._waiting = [waiting.slice(whole)]

    def close(self) -> None:
        """Write the last records and the footer."""
        if any(each.num_rows for each in self._waiting):
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=ROW_GROUP)
        self._writer.close()


@contextmanager
def shard_writer(path: Path, schema: pa.Schema = SCHEMA) -> Iterator[ShardWriter]:
    """A writer of a shard that appears when the block ends well."""
    with appearing(path) as temporary:
        writer = ShardWriter(temporary, schema)
        try:
            yield writer
        finally:
            writer.close()


def write_shard(records: Iterable[FGIDRecord], path: Path) -> None:
    """Write records to a Parquet file, which appears whole or not at all."""
    remaining = iter(records)
    with shard_writer(path) as writer:
        while group := list(islice(remaining, ROW_GROUP)):
            writer.write(to_table(group))


class FGIDDataset(Sequence[FGIDRecord]):
    """The records of a dataset, read from the disk when they are asked for; it can be sent to other processes.

    Attributes:
        folder: where the dataset is.
        manifest: what it holds.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._ends = list(accumulate(shard.rows for shard in manifest.shards))
        self._forget()

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> Self:
        """Open a dataset.

        Args:
            folder: what `consistentid dataset build` wrote.
            verify: read every shard and compare its checksum; else only their sizes are compared.

        Raises:
            InvalidData: there is no finished dataset, or a shard is missing or was changed.
        """
        manifest = Manifest.read(folder)
        for shard in manifest.shards:
            path = folder / shard.name
            if not path.is_file():
                raise InvalidData(f"{path} is missing; copy the dataset again")
            if path.stat().st_size != shard.bytes or (verify and sha256(path) != shard.sha256):
                raise InvalidData(f"{path} is not the file that {folder / 'manifest.json'} names; copy it again")
        return cls(folder, manifest)

    def __len__(self) -> int:
        return self.manifest.rows

    def __getitem__(self, index: int) -> FGIDRecord:  # type: ignore[override]  # no slices
        """The record of an index; negative ones count from the end.

        Raises:
            IndexError: there are fewer records.
            InvalidData: the shard cannot be read.
        """
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect_right(self._ends, position)
        row = position - (self._ends[shard - 1] if shard else 0)
        size = self._shard(shard).metadata.row_group(0).num_rows
        group = self._row_group(shard, row // size)
        return to_records(group.slice(row % size, 1))[0]

    def column(self, name: str) -> np.ndarray | list[Any]:
        """One column over all records; photos are not read.

        Args:
            name: a field of the record, or of its quality, as in "quality.sharpness".

        Returns:
            An array for numbers, (n, d) for embeddings, (n, 4) for boxes and (n, 5, 2) for landmarks; otherwise a list.

        Raises:
            InvalidData: there is no such column.
        """
        kind = _type_of(name)
        top, *rest = name.split(".")
        tables = [self._shard(index).read([name], use_threads=False) for index in range(len(self.manifest.shards))]
        if not tables:
            return []
        values = pa.concat_tables(tables).column(top).combine_chunks()
        for field in rest:
            values = values.field(field)
        return _as_numbers(values, kind)

    def batches(self, size: int, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All records in their order, as tables of `size` rows; a shard's last table may be smaller.

        Args:
            size: rows.
            columns: names of columns; None for all of `shards.SCHEMA`.
        """
        for index in range(len(self.manifest.shards)):
            for batch in self._shard(index).iter_batches(size, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])

    def __iter__(self) -> Iterator[FGIDRecord]:
        for table in self.batches(8):
            yield from to_records(table)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._tables: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def _shard(self, index: int) -> pq.ParquetFile:
        return _kept(self._files, index, self._open, limit=_OPEN_SHARDS)

    def _open(self, index: int) -> pq.ParquetFile:
        path = self.folder / self.manifest.shards[index].name
        try:
            return pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidData(f"{path} cannot be read ({first_line(error)}); copy it again") from error

    def _row_group(self, shard: int, group: int) -> pa.Table:
        def read(key: tuple[int, int]) -> pa.Table:
            return self._shard(key[0]).read_row_group(key[1], use_threads=False)

        return _kept(self._tables, (shard, group), read, limit=_ROW_GROUPS)


def _kept(cache: "OrderedDict[Key, Value]", key: Key, make: Callable[[Key], Value], *, limit: int) -> Value:
    """The value of a key, made when it is not there; the one not used for longest makes room."""
    if key not in cache:
        cache[key] = make(key)
        if len(cache) > limit:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]


def _type_of(name: str) -> pa.DataType:
    top, *rest = name.split(".")
    try:
        kind = SCHEMA.field(top).type
        for field in rest:
            kind = kind.field(field).type
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidData(f"a record has no column {name!r}; columns are {', '.join(SCHEMA.names)}") from error
    return kind


def _as_numbers(values: pa.Array, kind: pa.DataType) -> np.ndarray | list[Any]:
    """An array when every value is there and a number; else a list."""
    shape, inner, numbers = [len(values)], kind, values
    while pa.types.is_list(inner) or pa.types.is_fixed_size_list(inner):
        shape.append(getattr(inner, "list_size", -1))
        inner, numbers = inner.value_type, numbers.flatten()
    if numbers.null_count or not (pa.types.is_integer(inner) or pa.types.is_floating(inner)):
        return values.to_pylist()
    return numbers.to_numpy(zero_copy_only=False).reshape(shape)


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    """Parquet's names of a column's leaves."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path
