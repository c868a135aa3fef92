"""Files of jobs in one folder for each job."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from consistentid.errors import InvalidSettings
from consistentid.generation.portrait import write_bytes
from consistentid.web.errors import StoreFailed


class FolderFileStore:
    """A `FileStore` on the disk, readable by its owner alone.

    Args:
        folder: holds a folder for each job.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, job: str, name: str, content: bytes) -> None:
        """See `FileStore`."""
        try:
            write_bytes(self.folder / job / name, content)
        except InvalidSettings:
            raise StoreFailed("the server cannot write to its store; try again later") from None

    def get(self, job: str, name: str) -> bytes | None:
        """See `FileStore`."""
        try:
            return (self.folder / job / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def delete(self, job: str, names: Sequence[str] | None = None) -> None:
        """See `FileStore`."""
        if names is None:
            shutil.rmtree(self.folder / job, ignore_errors=True)
            return
        for name in names:
            (self.folder / job / name).unlink(missing_ok=True)

    def old(self, *, before: float) -> list[str]:
        """See `FileStore`."""
        for part in self.folder.glob("*/.*.part"):
            with suppress(FileNotFoundError):  # written whole meanwhile
                if part.stat().st_mtime < before:
                    part.unlink()
        found = ((path.name, path.stat().st_mtime) for path in self.folder.iterdir() if path.is_dir())
        return sorted(name for name, changed in found if changed < before)
