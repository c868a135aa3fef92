"""Which regions of a sample are compared with how they are to look, how they are cut out, and how strongly told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from consistentid.dataset.samples import Batch, Rows
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.conditions import ComparisonDraws, Kept

_READILY = {"face": 1.3, "ears": 1.8, "eyes": 1.8, "nose": 0.5, "mouth": 1.5}
_OTHERS = 0.5  # how much more readily regions of somebody else are
_EXAGGERATION = 1.5  # the largest weight of a region
_EMPHASIS = 2.5  # what a comparison with that weight counts, of one with 1


@dataclass(frozen=True)
class Compared(Rows):
    """Regions of b samples.

    A region with a weight above 1 is to be more like the reference's than the noise loss makes it. While no training
    sample had such a weight, portraits with 1.5 were less like it than those with 1.

    Attributes:
        regions: which are compared.
        outlined: which of them in their outlines, not in their boxes.
        exaggerated: whether their weight is the largest.
    """

    regions: Bool[Tensor, "b n"]
    outlined: Bool[Tensor, "b n"]
    exaggerated: Bool[Tensor, " b"]

    @classmethod
    def choose(cls, batch: Batch, kept: Kept, draws: ComparisonDraws | None, *, count: int) -> Self | None:
        """Up to `count` regions of each sample, rather those of somebody else; None: it is not known how they look."""
        if draws is None or batch.looks is None or batch.told is None:
            return None
        allowed = batch.looks.known & kept.regions
        readily = torch.tensor([_READILY[name] for name in REGION_NAMES], device=allowed.device)
        order = (1 + draws.order * readily + _OTHERS * batch.told.mixed) * allowed
        first = torch.zeros_like(allowed).scatter(1, order.topk(count, dim=1).indices, value=True)
        return cls(first & allowed, draws.outlined, draws.exaggerated)

    @property
    def counts(self) -> Float[Tensor, " b"]:
        """What each comparison of a sample counts in the loss."""
        return torch.where(self.exaggerated, _EMPHASIS, 1.0)


def weighted_regions(
    compared: Compared | None, kept: Kept, *, strength: Mapping[str, float]
) -> Float[Tensor, "b n"] | None:
    """The weight of every region's token, as of `Conditioning.with_weights`; None: all have 1.

    Args:
        compared: which regions may have the largest weight; None: none has.
        kept: of the conditions.
        strength: see `StepConfig.region_strength`.
    """
    if compared is None and not strength:
        return None
    largest = kept.regions & False if compared is None else compared.regions & compared.exaggerated[:, None]
    told = torch.tensor([strength.get(name, 1.0) for name in REGION_NAMES], device=largest.device)
    return told * torch.where(largest, _EXAGGERATION, 1.0)
