"""Tables of photos: Parquet, and the Arrow files of `datasets.save_to_disk`."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from consistentid.dataset.sources.item import STATED, About, BaseItem, BrokenItem, Content, Rejection, bytes_of
from consistentid.errors import InvalidData, first_line

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".arrow")
_PHOTOS = ("image", "photo", "jpg")
_LABEL_MAPS = ("label_map",)
_COLUMNS = (*_PHOTOS, *_LABEL_MAPS, *STATED)


class RowItem(BaseItem):
    """A photo in a row of a Parquet or Arrow file.

    Attributes:
        batch: row group, or record batch.
        row: inside the batch.
    """

    kind: Literal["row"] = "row"
    path: Path
    batch: int
    row: int

    def read(self) -> Content:
        """The photo and what belongs to it.

        Raises:
            Rejection: the row has no photo, or the file cannot be read.
        """
        values = _batch_of(self.path, self.batch).slice(self.row, 1).to_pylist()[0]
        photo = self._image(values, _PHOTOS)
        if photo is None:
            raise Rejection("missing", f"{self.origin} holds no photo")
        return Content(photo, About.of(values), self._image(values, _LABEL_MAPS))

    def _image(self, values: Mapping[str, Any], names: tuple[str, ...]) -> bytes | None:
        """Bytes of the first column that there is: bytes themselves, or {bytes, path} as `datasets` stores images."""
        value = next((values[name] for name in names if values.get(name) is not None), None)
        if not isinstance(value, dict):
            return value
        if value.get("bytes") is None and value.get("path"):
            return bytes_of(self.path.parent / value["path"])
        return value.get("bytes")


def table_items(path: Path) -> Iterator[RowItem | BrokenItem]:
    """One item a row, in the order of the file.

    Raises:
        InvalidData: the table has no column of photos.
    """
    import pyarrow as pa

    try:
        rows, columns = _shape(path)
    except (OSError, pa.ArrowException) as error:
        reason = f"{path.name} cannot be read ({first_line(error)}); make it again"
        yield BrokenItem(source=path.name, origin=path.name, reason=reason)
        return
    if not set(_PHOTOS).intersection(columns):
        raise InvalidData(f"{path} has no column of photos; call it image, as bytes or as datasets' Image")
    first = 0
    for batch, count in enumerate(rows):
        for row in range(count):
            yield RowItem(source=path.parent.name, origin=f"{path.name}#{first + row}", path=path, batch=batch, row=row)
        first += count


def _shape(path: Path) -> tuple[list[int], list[str]]:
    """Rows of every batch, and the names of the columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
            return groups, file.schema_arrow.names
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return [batch.num_rows for batch in reader], reader.schema.names


@lru_cache(maxsize=1)  # neighbours are read one after the other
def _batch_of(path: Path, batch: int) -> Any:
    import pyarrow as pa

    try:
        return _read(path, batch)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Rejection("unreadable", f"{path.name} cannot be read ({first_line(error)})") from error


def _read(path: Path, index: int) -> "pa.Table":
    """A row group of a Parquet file, or a record batch of an Arrow file; only columns that are used."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            used = [name for name in file.schema_arrow.names if name in _COLUMNS]
            return file.read_row_group(index, columns=used, use_threads=False)
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        batch = next(islice(reader, index, None))
        return pa.Table.from_batches([batch]).select([name for name in batch.schema.names if name in _COLUMNS])
