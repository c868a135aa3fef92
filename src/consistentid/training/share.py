"""The part of a step's batch that one process works on at once."""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Share:
    """One of the equal parts of the batch of a step: each process has `turns` of them, one after the other.

    Everything random depends on the seed, the step and the part, so that a resumed run sees what an uninterrupted one
    sees, and it does not matter which process works on which part.
    """

    seed: int
    step: int
    process: int = 0
    processes: int = 1
    turn: int = 0
    turns: int = 1

    @property
    def index(self) -> int:
        """Which part of the batch."""
        return self.process * self.turns + self.turn

    @property
    def count(self) -> int:
        """In how many parts the batch is cut."""
        return self.processes * self.turns

    def after(self, parts: int) -> "Share":
        """What the same process works on so many parts later."""
        steps, turn = divmod(self.turn + parts, self.turns)
        return replace(self, step=self.step + steps, turn=turn)

    def generator(self) -> torch.Generator:
        """The source of randomness of this part alone."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.step) * 1_009 + self.index)

    def common_generator(self) -> torch.Generator:
        """The source of randomness of the whole batch, the same for all parts."""
        return Share(self.seed, self.step).generator()

    def rows(self, size: int) -> slice:
        """Which samples of the whole batch these are, when each part has `size`."""
        return slice(self.index * size, (self.index + 1) * size)
