"""The items of all sources, listed once and divided into chunks, the unit of work of both engines."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from consistentid.dataset.files import appearing, write_text
from consistentid.dataset.manifest import this_version
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.sources import ITEM, Item, items_of
from consistentid.errors import InvalidData

_ITEMS = "items.jsonl"
_FINGERPRINT = "fingerprint"


@dataclass(frozen=True)
class Plan:
    """A build's list of items on the disk; workers on other machines read it there.

    Attributes:
        work: folder of everything unfinished.
        starts: where each chunk begins in the list, bytes.
        chunk: items in a chunk.
        items: how many there are.
        ignored: files that are no photos by their names.
        fingerprint: SHA-256 of items, settings and version.
    """

    work: Path
    starts: tuple[int, ...]
    chunk: int
    items: int
    ignored: int
    fingerprint: str

    def items_of(self, index: int) -> list[Item]:
        """The items of a chunk."""
        with (self.work / _ITEMS).open("rb") as file:
            file.seek(self.starts[index])
            return [ITEM.validate_json(line) for line, _ in zip(file, range(self.size_of(index)), strict=False)]

    def size_of(self, index: int) -> int:
        """How many items a chunk has."""
        return min(self.chunk, self.items - index * self.chunk)

    def result_of(self, index: int) -> Path:
        """Where a chunk's result is, once it is done."""
        return self.work / "chunks" / f"{index:06d}.parquet"

    def mark_of(self, index: int) -> Path:
        """A file that is there while a chunk is worked on, and after that died."""
        return self.work / "begun" / f"{index:06d}"

    @property
    def unfinished(self) -> list[int]:
        """Chunks without a result."""
        return [index for index in range(len(self.starts)) if not self.result_of(index).is_file()]


def make_plan(sources: Sequence[Path], work: Path, settings: BuildSettings, *, known: str | None) -> Plan:
    """List the items of all sources.

    Args:
        sources: see `sources.items_of`.
        work: where the list is written.
        settings: of the build.
        known: fingerprint of the build that the folder belongs to.

    Raises:
        InvalidData: a source does not exist, its metadata are malformed, or the folder is of another build.
    """
    made = [folder for folder in (work, work.parent) if not folder.exists()]
    try:
        with appearing(work / _ITEMS) as temporary:
            plan = _listed(sources, work, settings, temporary)
            if known not in (None, plan.fingerprint):
                raise InvalidData(f"{work.parent} is of other sources or settings; name a new folder")
            if plan.items == 0:
                raise InvalidData("the sources list no photo; name folders, lists, tars or tables with photos")
            write_text(work / _FINGERPRINT, plan.fingerprint)
    except BaseException:
        with suppress(OSError):  # it is not empty
            for folder in made:
                folder.rmdir()
        raise
    return plan


def fingerprint_of(work: Path) -> str | None:
    """The fingerprint of the build that was begun in a folder; None: none was."""
    path = work / _FINGERPRINT
    return path.read_text() if path.is_file() else None


def _listed(sources: Sequence[Path], work: Path, settings: BuildSettings, path: Path) -> Plan:
    digest = sha256(json.dumps([this_version(), settings.model_dump(mode="json")], sort_keys=True).encode())
    starts, items, ignored = [], 0, 0
    with path.open("wb") as file:
        for item in items_of(sources):
            if isinstance(item, Path):
                ignored += 1
                continue
            if items % settings.chunk == 0:
                starts.append(file.tell())
            line = item.model_dump_json().encode() + b"\n"
            digest.update(line)
            file.write(line)
            items += 1
    return Plan(work, tuple(starts), settings.chunk, items, ignored, digest.hexdigest())
