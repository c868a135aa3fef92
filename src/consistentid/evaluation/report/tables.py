"""Scores -> the tables of a report: one per block, methods below each other, metrics side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from consistentid.evaluation.scoring import Score
from consistentid.faces.regions import REGION_NAMES

Item = TypeVar("Item")

ALL = "all"
# In the order of the columns; a space at the end takes every metric that begins so, one at the start that ends so.
HEADLINE = (
    "face found", "rank-1 ", "auc ", "similarity ", "fgis", "moved as asked", "named as asked", " text", " image",
    "kid faces", "copied (mean)",
)  # fmt: skip
BY_GROUP = ("face found", "similarity ", "fgis", "moved as asked", "named as asked", " text", " image")
MEANINGS = {
    "face found": ("share of portraits that show a face", "higher"),
    "rank-1": ("share of portraits whose own person is the nearest of all people", "higher"),
    "similarity": ("cosine of identity embeddings, portrait and another photo of the person", "higher"),
    "auc fgis": ("probability that a region is more like the own person's than like another's", "higher"),
    "auc": ("probability that a portrait is nearer to its own person than to another", "higher"),
    "eer": ("equal error rate of accepting a portrait as its person", "lower"),
    "tar@far": ("share of portraits accepted as their person at that share of wrong people accepted", "higher"),
    "fgis": ("cosine of region embeddings, portrait and another photo of the person", "higher"),
    "moved as asked": ("share of portraits that lean further to what was asked than the opposite prompt's", "higher"),
    "named as asked": ("share of asked attributes whose measured word is the asked one", "higher"),
    "fid faces": ("Fréchet distance of aligned faces from the photos' faces; biased with few pictures", "lower"),
    "kid faces": ("kernel distance of aligned faces from the photos' faces", "lower"),
    "copied": ("correlation with the reference over people: 1 is a copy, 0 is free", ""),
    "leak": ("how much more a face is like the person beside than a photo of its own person is, by cosine", "lower"),
    "spread": ("how much portraits of one person and prompt differ", ""),
}


@dataclass(frozen=True)
class Table:
    """One block of a report.

    Attributes:
        title: name of the block.
        columns: names of metrics.
        rows: by method, a score per column, None where there is none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Score | None]]]


def meaning(metric: str) -> tuple[str, str]:
    """What a metric is, and which direction is better (empty: neither)."""
    for start, found in MEANINGS.items():
        if metric.startswith(start):
            return found
    if metric.endswith(" text"):
        return "cosine of the embeddings of portrait and prompt", "higher"
    if metric.endswith(" image"):
        return "cosine of the embeddings of portrait and reference photo", "higher"
    return "", ""


def headline_tables(scores: Sequence[Score]) -> list[Table]:
    """A table per block with the headline metrics of all its portraits."""
    whole = [score for score in scores if score.group == ALL]
    return [
        _table(block, [score for score in whole if score.block == block]) for block in _unique(s.block for s in whole)
    ]


def group_table(scores: Sequence[Score]) -> Table:
    """One row per block, method and group of prompts."""
    chosen = [score for score in scores if score.group != ALL]
    columns = _columns(BY_GROUP, chosen)
    rows = []
    for block, method, group in _unique((s.block, s.method, s.group) for s in chosen):
        own = {s.metric: s for s in chosen if (s.block, s.method, s.group) == (block, method, group)}
        rows.append((f"{block} · {method} · {group}", [own.get(metric) for metric in columns]))
    return Table("groups of prompts", columns, rows)


def region_table(scores: Sequence[Score]) -> Table:
    """FGIS by region, every method of every block but the points of sweeps."""
    columns = [f"fgis {name}" for name in REGION_NAMES] + [f"auc fgis {name}" for name in REGION_NAMES]
    chosen = [score for score in scores if score.group == ALL and "=" not in score.method]
    rows = []
    for block, method in _unique((score.block, score.method) for score in chosen):
        own = {score.metric: score for score in chosen if (score.block, score.method) == (block, method)}
        rows.append((f"{block} · {method}", [own.get(metric) for metric in columns]))
    return Table("regions", columns, rows)


def formatted(score: Score | None) -> tuple[str, str]:
    """The value, and what stands behind it: interval, and how many are missing."""
    if score is None or np.isnan(score.value):
        return "–", ""
    notes = [f"{_number(score.low)} to {_number(score.high)}"] if np.isfinite(score.low) else []
    notes += [f"{score.missing} missing"] if score.missing else []
    return _number(score.value), ", ".join(notes)


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _table(title: str, scores: Sequence[Score]) -> Table:
    columns = _columns(HEADLINE, scores)
    rows = []
    for method in _unique(score.method for score in scores):
        own = {score.metric: score for score in scores if score.method == method}
        rows.append((method, [own.get(column) for column in columns]))
    return Table(title, columns, rows)


def _columns(wanted: Sequence[str], scores: Sequence[Score]) -> list[str]:
    names = _unique(score.metric for score in scores)
    return _unique(name for one in wanted for name in names if _is(name, one))


def _is(name: str, wanted: str) -> bool:
    if wanted.startswith(" "):
        return name.endswith(wanted)
    if wanted.endswith(" "):
        return name.startswith(wanted) and not name.startswith("auc fgis")
    return name == wanted


def _unique(items: Iterable[Item]) -> list[Item]:
    return list(dict.fromkeys(items))
