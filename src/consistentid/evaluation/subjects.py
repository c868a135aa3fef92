"""Who is drawn: people with a reference photo and, best of all, another one to be recognised by."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from consistentid.dataset.holdout import is_held_out
from consistentid.dataset.sources.files import METADATA_NAME, photo_files
from consistentid.errors import InvalidData

Item = TypeVar("Item")


@dataclass(frozen=True)
class Subject:
    """One person.

    Attributes:
        name: of the person.
        reference: the photo that the portraits are made from.
        other: another photo, that no portrait was made from; None when there is only one.
        gender: woman or man, None when it is not known.
    """

    name: str
    reference: Path
    other: Path | None = None
    gender: str | None = None

    @property
    def gallery(self) -> Path:
        """The photo the person is recognised by: another one, or the reference for want of it."""
        return self.other or self.reference


def find_subjects(folder: Path, *, held_out: bool) -> list[Subject]:
    """People of a folder, in the order of their names.

    With a file `portraits.jsonl` (one JSON object a line: `file`, `person`, and `gender` or `gender_estimated` where
    known), people are those of the file, else each subfolder is a person, else each photo is one. The first photo by
    name is the reference, the second one is the other.

    Args:
        folder: of photos.
        held_out: only people with two photos whom training never sees; needs `portraits.jsonl`.

    Raises:
        InvalidData: the folder is missing, holds no people, or the file is malformed.
    """
    if not folder.is_dir():
        raise InvalidData(f"{folder} is no folder; give a folder of photos")
    listed = (folder / METADATA_NAME).is_file()
    if held_out and not listed:
        raise InvalidData(
            f"{folder} has no {METADATA_NAME}, which says who is held out from training; see docs/evaluation.md"
        )
    photos, genders = _listed(folder) if listed else (_by_folder(folder), {})
    people = sorted(name for name, files in photos.items() if not held_out or _is_new(name, len(files)))
    if not people:
        raise InvalidData(f"{folder} holds no {'held-out person with two photos' if held_out else 'photo'}")
    return [_subject(name, photos[name], genders.get(name)) for name in people]


def _is_new(name: str, photos: int) -> bool:
    return photos > 1 and is_held_out(name, photos)


def _subject(name: str, photos: list[Path], gender: str | None) -> Subject:
    reference, *others = sorted(photos)
    return Subject(name, reference, others[0] if others else None, gender)


def _listed(folder: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
    photos: dict[str, list[Path]] = defaultdict(list)
    genders: dict[str, str] = {}
    for number, line in enumerate((folder / METADATA_NAME).read_text().splitlines(), 1):
        try:
            about = json.loads(line)
            photos[about["person"]].append(folder / about["file"])
        except (ValueError, KeyError, TypeError):
            raise InvalidData(
                f"{folder / METADATA_NAME}, line {number}, must be JSON with `file` and `person`"
            ) from None
        if gender := about.get("gender", about.get("gender_estimated")):
            genders[about["person"]] = gender
    return photos, genders


def _by_folder(folder: Path) -> dict[str, list[Path]]:
    photos: dict[str, list[Path]] = defaultdict(list)
    for path in photo_files(folder):
        inside = path.relative_to(folder)
        photos[inside.parts[0] if len(inside.parts) > 1 else path.stem].append(path)
    return photos


def spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """So many of them, evenly spread."""
    if count is None or count >= len(items):
        return list(items)
    return [items[k * len(items) // count] for k in range(count)]
