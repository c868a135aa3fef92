"""Marking the words of a caption that stand for facial regions."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from consistentid.faces.regions import REGION_NAMES, REGIONS

_CLAUSE_ENDS = ",.;"
_SPLIT = re.compile(r"[,.;!?\n]+")


@dataclass(frozen=True)
class Clause:
    """A part of a caption.

    Attributes:
        text: its words, a NUL behind every marked one.
        regions: the regions whose words these are, in order.
        words: the marked words themselves.
    """

    text: str
    regions: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def marked(self, marker: str) -> str:
        """The text with a marker behind every marked word."""
        return self.text.replace("\0", f" {marker}")


def mark_clauses(caption: str, regions: Collection[str]) -> list[Clause]:
    """Clauses of a caption, with the first occurrence of each region's word marked.

    Clauses that speak only of regions that are not asked for are left out: the photo does not show them.
    """
    wanted = set(regions)
    clauses = []
    for text in (part.strip() for part in _SPLIT.split(caption.replace("\0", " "))):
        if not text:
            continue
        clause, mentions = _mark_clause(text, wanted)
        wanted -= set(clause.regions)
        if clause.regions or not mentions:
            clauses.append(clause)
    return clauses


def _mark_clause(text: str, wanted: set[str]) -> tuple[Clause, bool]:
    """The clause, and whether it mentions any region at all."""
    found = [
        (match.start(), region.name, match)
        for region in REGIONS
        if (match := word_pattern(region.name).search(text)) is not None
    ]
    marked = sorted(entry for entry in found if entry[1] in wanted)
    pieces, position = [], 0
    for _, _, match in marked:
        pieces.append(text[position : match.end()] + "\0")
        position = match.end()
    clause = Clause(
        "".join(pieces) + text[position:],
        tuple(name for _, name, _ in marked),
        tuple(match.group() for _, _, match in marked),
    )
    return clause, bool(found)


@cache
def word_pattern(region: str) -> re.Pattern[str]:
    """Finds the words of a text that stand for a region."""
    words = next(entry.words for entry in REGIONS if entry.name == region)
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


def mark_as_release(caption: str, regions: Collection[str], marker: str) -> tuple[str, tuple[str, ...]]:
    """The caption as the released checkpoints were trained with it (design notes, method 3.7).

    Returns:
        The marked caption and the regions of its markers, in their order.
    """
    text = _without_repeated_words(caption)
    asked = [name for name in REGION_NAMES if name in regions]
    for name in asked:
        text = re.sub(rf"\b{name}\b", f"{name} {_own_marker(name)}", text, count=1)
    clauses = []
    for name in asked:
        start, end = _clause_span(text, _own_marker(name))
        clause = text[start:end].strip()
        if clause:
            clauses.append(f"{clause},")
            text = text[:start] + text[end:]
    marked = " ".join(clauses)
    order = sorted((marked.find(_own_marker(name)), name) for name in asked if _own_marker(name) in marked)
    return _replace_all(marked, map(_own_marker, asked), marker), tuple(name for _, name in order)


def _own_marker(region: str) -> str:
    return f"<|{region}|>"


def _without_repeated_words(caption: str) -> str:
    """Words and punctuation joined by single spaces; of a region's word only the first is kept, whatever its case."""
    seen, kept = set(), []
    for word in re.findall(r"\b\w+\b|[.,;!?]", caption):
        name = word.lower()
        kept.append("" if name in seen else word)
        if name in REGION_NAMES:
            seen.add(name)
    return " ".join(kept)


def _clause_span(text: str, marker: str) -> tuple[int, int]:
    """Where the marker's clause begins and ends.

    The release goes on when a word is absent (position -1), which takes the last letter of a text without
    punctuation; kept, because the weights saw such captions.
    """
    start = text.find(marker)
    end = start + len(marker)
    while end < len(text) and text[end] not in _CLAUSE_ENDS:
        end += 1
    while start > 0 and text[start - 1] not in _CLAUSE_ENDS:
        start -= 1
    return start, end


def _replace_all(text: str, old: Iterable[str], new: str) -> str:
    for part in old:
        text = text.replace(part, new)
    return text
