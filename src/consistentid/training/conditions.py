"""What the U-Net is told of each sample: conditions are dropped, so that it learns to do without each."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from consistentid.dataset.samples import Batch
from consistentid.training.latent_regression import Told

_Probability = Field(ge=0, le=1)


class ConditionDropout(BaseModel):
    """How often conditions are dropped.

    Attributes:
        drop_all: the guidance branch: no text, no regions, zero identity.
        drop_text: no text and no regions, identity kept.
        drop_identity: zero identity and zero image features, text and regions kept.
        drop_regions: no regions, as before the merge step.
        drop_region: each region on its own.
        base_only: the whole batch without the adapter, so that the base model stays a text-to-image model.
        regions_only: the whole batch without identity tokens and LoRAs, as with an identity scale of 0.
    """

    model_config = ConfigDict(extra="forbid")

    drop_all: float = _Probability
    drop_text: float = _Probability
    drop_identity: float = _Probability
    drop_regions: float = _Probability
    drop_region: float = _Probability
    base_only: float = Field(default=0.0, ge=0, le=1)
    regions_only: float = Field(default=0.0, ge=0, le=1)


@dataclass(frozen=True)
class Conditions:
    """What the U-Net is told of each sample, after dropping.

    Attributes:
        ids: the text.
        text: whether it is said.
        valid: regions that are shown.
        identity: whether identity embedding and whole features are.
        fused: whether the FacialEncoder fuses regions into the text; it does not for the base model alone.
        scale: of the identity tokens.
    """

    ids: Int[Tensor, "b l"]
    text: Bool[Tensor, " b"]
    valid: Bool[Tensor, "b n"]
    identity: Bool[Tensor, " b"]
    fused: bool
    scale: float

    @property
    def somebody(self) -> Bool[Tensor, " b"]:
        """Whether anything is told of the person."""
        return self.identity | self.valid.any(1)

    def told(self, batch: Batch) -> Told:
        """What is left of the batch, for the prior."""
        person = batch.target_identity
        regions = torch.where(self.valid[..., None], batch.region_identity, person[:, None])
        return Told(person, batch.words * self.text[:, None], regions)


def dropped(
    batch: Batch, empty_ids: Int[Tensor, " l"], generator: torch.Generator, *, config: ConditionDropout
) -> Conditions:
    """Drop conditions of a batch at random."""
    count, kind = len(batch.ids), float(torch.rand((), generator=generator))
    scale = float(kind >= config.base_only + config.regions_only)
    all_kept = keep(count, config.drop_all, generator)
    text = all_kept & keep(count, config.drop_text, generator)
    valid = batch.valid & text[:, None] & keep(count, config.drop_regions, generator)[:, None]
    return Conditions(
        ids=torch.where(text[:, None], batch.ids, empty_ids),
        text=text,
        valid=valid & (torch.rand(batch.valid.shape, generator=generator) >= config.drop_region),
        identity=all_kept & keep(count, config.drop_identity, generator) & bool(scale),
        fused=kind >= config.base_only,
        scale=scale,
    )


def keep(count: int, drop: float, generator: torch.Generator) -> Bool[Tensor, " b"]:
    """Which of some samples are not dropped."""
    return torch.rand(count, generator=generator) >= drop
