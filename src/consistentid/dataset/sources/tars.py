"""WebDataset tars: files of one key, `key.jpg`, `key.json`, `key.txt` and `key.label_map.png`, are one item."""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from consistentid.dataset.sources.item import About, BaseItem, BrokenItem, Content, Rejection, bytes_of

_PHOTOS = ("jpg", "jpeg", "png", "webp")
_LABEL_MAP = "label_map.png"


class TarItem(BaseItem):
    """A photo in an uncompressed tar, with the files of the same key: WebDataset's layout.

    Attributes:
        members: extension -> offset and size in the tar.
    """

    kind: Literal["tar"] = "tar"
    path: Path
    members: dict[str, tuple[int, int]]

    def read(self) -> Content:
        """The photo and what belongs to it.

        Raises:
            Rejection: the tar is missing, or its metadata are no JSON.
        """
        stated: dict[str, Any] = {}
        if "json" in self.members:
            try:
                stated = dict(json.loads(self._member("json")))
            except (ValueError, TypeError) as error:
                raise Rejection("unreadable_metadata", f"{self.origin}: its .json is no JSON object") from error
        if "txt" in self.members:
            stated.setdefault("caption", self._member("txt").decode("utf-8", "replace").strip())
        photo = next(self._member(extension) for extension in _PHOTOS if extension in self.members)
        return Content(photo, About.of(stated), self._member(_LABEL_MAP) if _LABEL_MAP in self.members else None)

    def _member(self, extension: str) -> bytes:
        offset, size = self.members[extension]
        return bytes_of(self.path, offset, size)


def tar_items(path: Path) -> Iterator[TarItem | BrokenItem | Path]:
    """Items of an uncompressed tar, by reading its headers alone; a path is a key without a photo."""
    members = _Members(path)
    for key, group in groupby(members, key=lambda member: member[0]):
        files = {extension: (offset, size) for _, extension, offset, size in group}
        if any(extension in files for extension in _PHOTOS):
            yield TarItem(source=path.name, origin=key, path=path, members=files)
        else:
            yield path / key
    if members.problem:
        yield BrokenItem(source=path.name, origin=path.name, reason=members.problem)


class _Members:
    """Key, extension, offset and size of every file in a tar.

    Attributes:
        problem: why the tar could not be read to its end, when it could not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None

    def __iter__(self) -> Iterator[tuple[str, str, int, int]]:
        count = 0
        try:
            with tarfile.open(self.path, "r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else every header is kept in memory
                    if member.isfile():
                        folder, _, name = member.name.rpartition("/")
                        key, _, extension = name.partition(".")
                        yield f"{folder}/{key}".lstrip("/"), extension.lower(), member.offset_data, member.size
                    count += 1
                if any(bytes_of(self.path, tar.offset, tarfile.BLOCKSIZE) or b"cut"):
                    raise tarfile.ReadError("it has no end mark")  # tarfile takes a broken header for the end
        except (tarfile.TarError, OSError, EOFError) as error:
            self.problem = (
                f"{self.path.name} cannot be read beyond {count} files ({error}); make it again, uncompressed"
            )
