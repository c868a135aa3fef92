"""How like their references the parts of portraits are, and means of that over people; for `control.py`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from held_out import Person

from consistentid.evaluation.embedders import cosine
from consistentid.evaluation.fgis import region_similarity
from consistentid.evaluation.intervals import mean_estimate
from consistentid.evaluation.measured import Measured
from consistentid.evaluation.recognisers import DlibRecogniser
from consistentid.faces.regions import REGION_NAMES

PARTS = (*REGION_NAMES, "identity")


def in_squares(row: Sequence[Measured]) -> list[Measured]:
    """Regions as squares with what is around them, which no parser outlines."""
    return [replace(one, regions=one.squares) for one in row]


def centred(row: Sequence[Measured]) -> list[Measured]:
    """Region embeddings of one kind of picture less their mean over people."""
    seen = {name: [one.regions[name] for one in row if name in one.regions] for name in REGION_NAMES}
    means = {name: np.mean(values, 0) for name, values in seen.items() if values}
    return [replace(one, regions={name: value - means[name] for name, value in one.regions.items()}) for one in row]


KINDS: dict[str, Callable[[Sequence[Measured]], Sequence[Measured]]] = {
    "fgis": list,
    "centred": centred,
    "squares": in_squares,
    "squares, centred": lambda row: centred(in_squares(row)),
}


def likeness(a: Measured, b: Measured | None) -> float:
    """Cosine of identity embeddings; NaN without two faces."""
    first, second = (each.identity.get(DlibRecogniser.name) if each else None for each in (a, b))
    return float("nan") if first is None or second is None else float(cosine(first, second))


def regional(a: Measured, b: Measured, regions: Iterable[str]) -> float:
    """Mean similarity of some regions; NaN when none is seen in both."""
    found = region_similarity(a.regions, b.regions).regions
    values = [found[name] for name in regions if name in found]
    return float(np.mean(values)) if values else float("nan")


def of_part(part: str) -> Callable[[Measured, Measured], float]:
    """The similarity that a part's control is about."""
    return likeness if part == "identity" else partial(regional, regions=(part,))


def others(part: str) -> tuple[str, ...]:
    """All regions but one; for the overall identity, all."""
    return tuple(name for name in REGION_NAMES if name != part)


def named(people: Sequence[Person], values: Iterable[float]) -> dict[str, float]:
    """Each person's mean over seeds, NaN left out."""
    found = defaultdict(list)
    for person, value in zip(people, values, strict=True):
        if np.isfinite(value):
            found[person.name].append(value)
    return {name: float(np.mean(row)) for name, row in found.items()}


def slope(xs: Sequence[float], rows: np.ndarray) -> np.ndarray:
    """Least-squares slope of each row, NaN where a value is."""
    centred = np.array(xs) - np.mean(xs)
    return rows @ centred / (centred @ centred)


def estimated(people: Sequence[Person], values: Iterable[float]) -> dict[str, float]:
    """Mean over people with its interval."""
    return asdict(mean_estimate(named(people, values)))
