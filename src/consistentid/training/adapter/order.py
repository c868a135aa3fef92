"""In which order photos are trained on: every one once an epoch, those of a batch of equal proportions."""

from dataclasses import dataclass, field
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

    buckets: Int[np.ndarray, " m"]
    count: int
    seed: int
    _epochs: dict[int, "_Epoch"] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _members(self) -> dict[int, Int[np.ndarray, " m"]]:
        return {int(bucket): np.flatnonzero(self.buckets == bucket) for bucket in np.unique(self.buckets)}

    @property
    def steps_per_epoch(self) -> int:
        """Batches until every photo was seen."""
        return sum(-(-len(members) // self.count) for members in self._members.values())

    def batch(self, step: int) -> tuple[int, Int[np.ndarray, " b"]]:
        """The bucket and the photos of a step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch not in self._epochs:
            self._epochs.clear()
            self._epochs[epoch] = self._shuffled(epoch)
        bucket, start = (int(value) for value in self._epochs[epoch].starts[index])
        members = self._epochs[epoch].members[bucket]
        return bucket, np.take(members, range(start, start + self.count), mode="wrap")

    def _shuffled(self, epoch: int) -> "_Epoch":
        starts = [(b, start) for b, members in self._members.items() for start in range(0, len(members), self.count)]
        return _Epoch(
            np.random.default_rng((self.seed, epoch)).permutation(np.array(starts)),
            {b: np.random.default_rng((self.seed, epoch, b)).permutation(own) for b, own in self._members.items()},
        )


@dataclass(frozen=True)
class _Epoch:
    """Bucket and place of each batch, and the photos of each bucket in their order."""

    starts: Int[np.ndarray, "batches 2"]
    members: dict[int, Int[np.ndarray, " m"]]
