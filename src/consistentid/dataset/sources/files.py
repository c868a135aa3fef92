"""Photos in files of their own: folders and lists of them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from consistentid.dataset.sources.item import About, BaseItem, Content, bytes_of
from consistentid.errors import InvalidData

METADATA_NAME = "portraits.jsonl"
LABEL_MAPS = "label_maps"
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class FileItem(BaseItem):
    """A photo in a file of its own."""

    kind: Literal["file"] = "file"
    path: Path
    size: int
    about: About = About()
    label_map: Path | None = None
    identity_embedding: Path | None = None

    def read(self) -> Content:
        """The photo and what belongs to it.

        Raises:
            Rejection: a file is missing.
        """
        label_map = None if self.label_map is None else bytes_of(self.label_map)
        embedding = None if self.identity_embedding is None else _embedding_of(self.identity_embedding)
        return Content(bytes_of(self.path), self.about, label_map, embedding)


def folder_items(folder: Path) -> Iterator[FileItem | Path]:
    """Photos of a folder and its subfolders in the order of their names; a path is a file that is no photo by its name.

    A file `portraits.jsonl` may state `file`, `person`, `source`, `licence`, `gender`, `age`, `caption` and
    `facial_caption`; a folder `label_maps` may hold PNGs of the same names, in the same subfolders (without the first,
    when that is `photos`).

    Raises:
        InvalidData: the metadata is malformed, or names a file that is not there.
    """
    about = {str(stated["file"]): About.of(stated) for stated in stated_lines(folder / METADATA_NAME)}
    for path in _files(folder):
        name = path.relative_to(folder)
        if path.suffix.lower() not in _PHOTO_SUFFIXES:
            if name.name != METADATA_NAME:
                yield path
            continue
        yield FileItem(
            source=folder.name,
            origin=name.as_posix(),
            path=path,
            size=path.stat().st_size,
            about=about.pop(name.as_posix(), About()),
            label_map=_label_map(folder, name),
        )
    for stated, of_it in about.items():  # but there is no such photo
        yield missing_file(folder / stated, folder.name, of_it)


def photo_files(folder: Path) -> list[Path]:
    """Files of a folder and its subfolders that are photos by their names, without label maps.

    Raises:
        InvalidData: there is no such folder.
    """
    if not folder.is_dir():
        raise InvalidData(f"{folder} is no folder; give a folder of photos")
    return [path for path in _files(folder) if path.suffix.lower() in _PHOTO_SUFFIXES]


def _files(folder: Path) -> Iterator[Path]:
    """Files of a folder and its subfolders, without hidden ones and label maps."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.name != LABEL_MAPS:
                yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)


def _label_map(folder: Path, name: Path) -> Path | None:
    inner = name.relative_to("photos") if name.parts[0] == "photos" else name
    path = folder / LABEL_MAPS / inner.with_suffix(".png")
    return path if path.is_file() else None


def list_items(path: Path) -> Iterator[FileItem]:
    """Photos that a list names: a path a line, or a line of JSON with `file` and metadata; relative to the list.

    Raises:
        InvalidData: a line is malformed.
    """
    if path.suffix == ".jsonl":
        lines = [(str(stated["file"]), About.of(stated)) for stated in stated_lines(path)]
    else:
        lines = [(line.strip(), About()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for name, about in lines:
        photo = path.parent / name
        if photo.is_file():
            yield FileItem(source=path.stem, origin=name, path=photo, size=photo.stat().st_size, about=about)
        else:
            yield missing_file(photo, path.stem, about)


def missing_file(path: Path, source: str, about: About = About()) -> FileItem:  # noqa: B008  About is frozen
    """An item whose photo is not there, which reading it will tell."""
    return FileItem(source=source, origin=path.name, path=path, size=0, about=about)


def stated_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file of JSON lines, each with `file`; nothing when there is no such file.

    Raises:
        InvalidData: a line is malformed.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                stated = json.loads(line)
                stated["file"]
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidData(f"{path}, line {number}, must be a JSON object with a 'file'") from error
            yield stated


def _embedding_of(path: Path) -> Float[np.ndarray, " d"] | None:
    """The tensor of a released .bin; None when it is none, because the photo can be analysed again."""
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001  bytes that are no pickle are read as operations, which fail in any way
        return None
    return loaded.float().numpy().ravel() if isinstance(loaded, torch.Tensor) else None
