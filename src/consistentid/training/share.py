"""The part of a step's batch that one process works on at once."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Share:
    """One of `count` equal parts of the batch of a step: one for each process and each accumulated pass.

    Everything random depends on the seed, the step and the part, so that a resumed run sees what an uninterrupted one
    sees, and it does not matter which process works on which part.
    """

    seed: int
    step: int
    index: int = 0
    count: int = 1

    def generator(self) -> torch.Generator:
        """The source of randomness of this part alone."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.step) * 1_009 + self.index)

    def common_generator(self) -> torch.Generator:
        """The source of randomness of the whole batch, the same for all parts."""
        return Share(self.seed, self.step).generator()

    def rows(self, size: int) -> slice:
        """Which samples of the whole batch these are, when each part has `size`."""
        return slice(self.index * size, (self.index + 1) * size)
