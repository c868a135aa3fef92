"""In which order photos are trained on: every one once an epoch, those of a batch of equal proportions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Order:
    """Batches of `count` photos from the same bucket, shuffled anew in every epoch.

    The last batch of a bucket is filled with photos of its beginning.

    Attributes:
        buckets: of each photo.
        count: photos of a batch.
        seed: of the order.
    """

    buckets: Sequence[int]
    count: int
    seed: int

    @cached_property
    def _members(self) -> dict[int, Int[np.ndarray, " m"]]:
        buckets = np.asarray(self.buckets)
        return {int(bucket): np.flatnonzero(buckets == bucket) for bucket in np.unique(buckets)}

    @property
    def steps_per_epoch(self) -> int:
        """Batches until every photo was seen."""
        return sum(-(-len(members) // self.count) for members in self._members.values())

    def batch(self, step: int) -> tuple[int, Int[np.ndarray, " b"]]:
        """The bucket and the photos of a step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        bucket, start = self._starts(epoch)[index]
        shuffled = self._rng(epoch, bucket).permutation(self._members[bucket])
        return bucket, np.take(shuffled, range(start, start + self.count), mode="wrap")

    def _starts(self, epoch: int) -> list[tuple[int, int]]:
        starts = [
            (bucket, start) for bucket, members in self._members.items() for start in range(0, len(members), self.count)
        ]
        return [starts[index] for index in self._rng(epoch).permutation(len(starts))]

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *what))
