"""Some of a dataset's records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.shards import FGIDDataset


@dataclass(frozen=True)
class Selection(Sequence[FGIDRecord]):
    """Records of a dataset in an order of their own, read when they are asked for.

    Attributes:
        dataset: all records.
        rows: indices of the chosen ones.
    """

    dataset: FGIDDataset
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> FGIDRecord:  # type: ignore[override]  # no slices
        return self.dataset[self.rows[index]]

    def column(self, name: str) -> list[Any]:
        """One field of every record, without its pictures."""
        values = self.dataset.column(name)
        return [values[row] for row in self.rows]

    def part(self, start: int, count: int) -> "Selection":
        """At most `count` of them from a place on."""
        return Selection(self.dataset, self.rows[start : start + count])
