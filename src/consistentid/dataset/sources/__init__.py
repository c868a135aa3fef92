"""Where photos come from -> items, in an order that is always the same."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from consistentid.dataset.manifest import MANIFEST_NAME
from consistentid.dataset.sources.files import FileItem, folder_items, list_items
from consistentid.dataset.sources.item import BrokenItem
from consistentid.dataset.sources.release import release_items
from consistentid.dataset.sources.tables import SUFFIXES as TABLES
from consistentid.dataset.sources.tables import RowItem, table_items
from consistentid.dataset.sources.tars import TarItem, tar_items
from consistentid.errors import InvalidData

Item = Annotated[FileItem | TarItem | RowItem | BrokenItem, Field(discriminator="kind")]
ITEM: TypeAdapter[Item] = TypeAdapter(Item)


def items_of(sources: Sequence[Path]) -> Iterator[Item | Path]:
    """Items of all sources; a path among them is a file that is no photo by its name.

    Raises:
        InvalidData: a source does not exist, or is none.
    """
    for source in sources:
        yield from _items(source.expanduser().resolve())


def _items(source: Path) -> Iterator[Item | Path]:
    if source.is_dir():
        yield from _items_in_folder(source)
    elif not source.exists():
        raise InvalidData(f"{source} does not exist; name a folder, a list, a tar, a Parquet file or FGID's JSON list")
    elif source.suffix in (".txt", ".jsonl"):
        yield from list_items(source)
    elif source.suffix == ".tar":
        yield from tar_items(source)
    elif source.suffix in TABLES:
        yield from table_items(source)
    elif source.suffix == ".json":
        yield from release_items(source)
    else:
        raise InvalidData(
            f"{source.name} is no source; name a folder, a list (.txt, .jsonl), a .tar, a .parquet or FGID's .json"
        )


def _items_in_folder(folder: Path) -> Iterator[Item | Path]:
    """Items of its tables or tars, at any depth, when it has any in itself or in its folder `data`; else its photos."""
    if (folder / MANIFEST_NAME).is_file():
        raise InvalidData(f"{folder} is a finished dataset, no source")
    for suffixes, items in ((TABLES, table_items), ((".tar",), tar_items)):
        near = (*folder.iterdir(), *(folder / "data").glob("*"))
        if any(path.suffix in suffixes for path in near):
            for path in sorted(path for path in folder.rglob("*") if path.suffix in suffixes):
                yield from items(path)
            return
    yield from folder_items(folder)
