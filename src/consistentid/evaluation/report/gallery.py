"""Portraits beside their references, the worst first, as small JPEGs inside the page."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from consistentid.errors import ConsistentIDError
from consistentid.evaluation.pictures import Picture
from consistentid.evaluation.subjects import Subject
from consistentid.images import load_photo

_SIDE = 112  # px of a thumbnail
_WORST = 24


@dataclass(frozen=True)
class Tile:
    """One portrait in the gallery.

    Attributes:
        reference: data URI of the photo.
        portrait: data URI; None when there is no picture.
        caption: which portrait.
        note: its numbers, or why it has none.
    """

    reference: str
    portrait: str | None
    caption: str
    note: str


@dataclass(frozen=True)
class Row:
    """One person: the reference, and a portrait by each column's method and prompt."""

    name: str
    reference: str
    portraits: Sequence[str | None]


def worst(pictures: Sequence[Picture], subjects: Sequence[Subject], *, recogniser: str) -> list[Tile]:
    """The portraits least like their person; those without a face come first."""
    metric = f"similarity {recogniser}"
    photos = {subject.name: subject.reference for subject in subjects}

    def badness(picture: Picture) -> tuple[float, object]:
        value = picture.numbers.get(metric, float("nan"))
        return (-np.inf if np.isnan(value) else value), picture.shot

    return [
        Tile(
            reference=_uri(photos[picture.shot.subject]) or "",
            portrait=None if picture.path is None else _uri(picture.path),
            caption=f"{picture.shot.subject}, {picture.shot.prompt or picture.shot.method}",
            note=picture.measured.failure or _note(picture.numbers),
        )
        for picture in sorted(pictures, key=badness)[:_WORST]
    ]


def _note(numbers: Mapping[str, float]) -> str:
    shown = [name for name in numbers if name.startswith("similarity ") or name in {"fgis", "moved as asked"}]
    return ", ".join(f"{name.removeprefix('similarity ')} {numbers[name]:.2f}" for name in shown)


def rows(pictures: Sequence[Picture], subjects: Sequence[Subject]) -> tuple[list[str], list[Row]]:
    """All people and every kind of portrait of a block: names of the columns, and the rows."""
    kinds = list(dict.fromkeys((p.shot.method, p.shot.prompt, p.shot.index) for p in pictures))
    by_place = {(p.shot.subject, p.shot.method, p.shot.prompt, p.shot.index): p for p in pictures}
    shown = {picture.shot.subject for picture in pictures}
    several = len({index for _, _, index in kinds}) > 1
    names = [f"{method} · {prompt}" + (f" · {index}" if several else "") for method, prompt, index in kinds]
    result = []
    for subject in subjects:
        if subject.name in shown:
            found = [by_place.get((subject.name, *kind)) for kind in kinds]
            portraits = [_uri(one.path) if one is not None and one.path is not None else None for one in found]
            result.append(Row(subject.name, _uri(subject.reference) or "", portraits))
    return names, result


@cache
def _uri(path: Path) -> str | None:
    """A small JPEG; None when the picture cannot be read."""
    try:
        picture = load_photo(path)
    except ConsistentIDError:
        return None
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    content = BytesIO()
    picture.save(content, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(content.getvalue()).decode()}"
