"""Is one evaluation better than another? Paired by person, over the portraits that both have."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from consistentid.errors import InvalidData
from consistentid.evaluation.intervals import PairedDifference, by_subject, paired_difference
from consistentid.evaluation.report.tables import meaning
from consistentid.evaluation.results import PictureNumbers
from consistentid.evaluation.run import REAL

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """One metric of two evaluations.

    Attributes:
        block, method: of the portraits.
        metric: what was measured.
        first, second: means over the people who have both.
        paired: their difference.
        p: the paired test's, multiplied by Holm's factor for the metrics that are compared.
    """

    block: str
    method: str
    metric: str
    first: float
    second: float
    paired: PairedDifference
    p: float

    @property
    def verdict(self) -> str:
        """better, worse or no difference told; higher or lower where neither is better."""
        if not self.p < SIGNIFICANT:
            return "no difference told"
        up, better = self.paired.difference > 0, meaning(self.metric)[1]
        if not better:
            return "higher" if up else "lower"
        return "better" if up == (better == "higher") else "worse"


def compare(first: Sequence[PictureNumbers], second: Sequence[PictureNumbers]) -> list[Comparison]:
    """Compare portraits of the same block, method, person, prompt and index; real photos are the same in both.

    Raises:
        InvalidData: the two have no portrait in common.
    """
    ours = {_place(row): row for row in first if row.block != REAL}
    theirs = {_place(row): row for row in second if row.block != REAL}
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise InvalidData("the two evaluations have no portrait of the same block, method, person and prompt")
    groups: dict[tuple[str, str], list[tuple[PictureNumbers, PictureNumbers]]] = defaultdict(list)
    for place in shared:
        groups[place[0], place[1]].append((ours[place], theirs[place]))
    return _holm(each for (block, method), pairs in groups.items() for each in _compared(block, method, pairs))


def _place(row: PictureNumbers) -> tuple[str, str, str, str, int]:
    return row.block, row.method, row.subject, row.prompt, row.index


def _compared(block: str, method: str, pairs: Sequence[tuple[PictureNumbers, PictureNumbers]]) -> Iterable[Comparison]:
    metrics = dict.fromkeys(name for one, other in pairs for name in one.numbers if name in other.numbers)
    for metric in metrics:
        known = [
            (one.subject, a, b)
            for one, other in pairs
            if (a := one.numbers.get(metric)) is not None and (b := other.numbers.get(metric)) is not None
        ]
        if not known:
            continue
        subjects, a_values, b_values = zip(*known, strict=True)
        means = by_subject(a_values, subjects), by_subject(b_values, subjects)
        paired = paired_difference(*means)
        ours, theirs = (float(np.mean(list(mean.values()))) for mean in means)
        yield Comparison(block, method, metric, ours, theirs, paired, paired.p)


def _holm(found: Iterable[Comparison]) -> list[Comparison]:
    """p-values that hold for all comparisons together (Holm 1979)."""
    comparisons = list(found)
    tested = sorted((one for one in comparisons if one.p == one.p), key=lambda one: one.p)
    adjusted: dict[int, float] = {}
    largest = 0.0
    for rank, one in enumerate(tested):
        largest = max(largest, min(1.0, one.p * (len(tested) - rank)))
        adjusted[id(one)] = largest
    return [replace(one, p=adjusted.get(id(one), one.p)) for one in comparisons]


def people_differ(first: Sequence[PictureNumbers], second: Sequence[PictureNumbers]) -> str | None:
    """What to mind when the two evaluations are not of the same people."""
    ours, theirs = ({row.subject for row in rows} for rows in (first, second))
    if ours == theirs:
        return None
    return (
        f"A has {len(ours)} people, B {len(theirs)}, {len(ours & theirs)} are in both: rank-1 and `moved` for gender "
        "depend on who else there is; evaluate both on the same people to compare these."
    )


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """As Markdown, the surest differences first."""
    ordered = sorted(comparisons, key=lambda one: (one.p != one.p, one.p, -abs(one.paired.difference)))
    rows = [
        f"| {one.block} | {one.method} | {one.metric} | {one.first:.4f} | {one.second:.4f} "
        f"| {_with_interval(one.paired)} | {one.p:.4f} | {one.paired.subjects} | {one.verdict} |"
        for one in ordered
    ]
    head = "| block | method | metric | A | B | B - A (95 %) | p (Holm) | people | B is |"
    return "\n".join([head, "|---" * 9 + "|", *rows])


def _with_interval(paired: PairedDifference) -> str:
    return f"{paired.difference:+.4f} ({paired.low:+.4f} to {paired.high:+.4f})"
