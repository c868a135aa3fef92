"""Photos that were given to the page: their files, whose they are, and when they go. Knows nothing of Gradio."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from consistentid.errors import UnreadableImage
from consistentid.web.ui.ownership import Ownership


@dataclass(frozen=True, eq=False)
class Given:
    """A photo that was given.

    Attributes:
        content: of the file.
        upload: the file, whose `owner` has it.
        owner: who gave it.
        sha256: of its pixels; empty until somebody looked at it.
    """

    content: bytes
    upload: Path
    owner: str
    sha256: str = ""


class Uploads:
    """Files that were given, which are read by whoever gave them, and deleted when they are not wanted any more.

    Args:
        ownership: whose they are.
    """

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership

    def instead(self, before: Given | None, upload: Path | None, *, owner: str) -> Given | None:
        """The photo in a file instead of the one before, which is deleted; None: no photo.

        Raises:
            UnreadableImage: it is somebody else's, or gone.
        """
        if before is not None and before.upload != upload:
            self.release(before)
        return None if upload is None else self.given(upload, owner=owner)

    def given(self, upload: Path, *, owner: str) -> Given:
        """The photo in a file.

        Raises:
            UnreadableImage: it is somebody else's, or gone.
        """
        with suppress(OSError):
            if self._ownership.may_read(upload, owner=owner):
                return Given(upload.read_bytes(), upload, owner)
        raise UnreadableImage("the file is not there any more; give it again")

    def release(self, given: Given | None) -> None:
        """Delete a photo that is not wanted any more, unless somebody else gave it, too."""
        if given is not None and self._ownership.drop(given.upload, owner=given.owner):
            given.upload.unlink(missing_ok=True)
