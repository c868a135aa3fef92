"""What the U-Net is told of each sample: conditions are dropped, so that it learns to do without each."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from consistentid.dataset.samples import Batch, Rows, Told
from consistentid.faces.regions import REGION_NAMES

_Probability = Field(ge=0, le=1)
_MOUTH = REGION_NAMES.index("mouth")


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
class Kept(Rows):
    """Which conditions are kept, for b samples.

    Attributes:
        text: the prompt.
        regions: each region.
        identity: identity embedding and features of the head.
        fused: whether the FacialEncoder fuses regions into the text; it does not for the base model alone.
        scale: of the identity tokens.
    """

    text: Bool[Tensor, " b"]
    regions: Bool[Tensor, "b n"]
    identity: Bool[Tensor, " b"]
    fused: bool
    scale: float

    @classmethod
    def draw(cls, count: int, regions: int, generator: torch.Generator, *, config: ConditionDropout) -> "Kept":
        """Drop conditions of `count` samples at random."""
        kind = float(torch.rand((), generator=generator))
        scale = float(kind >= config.base_only + config.regions_only)
        all_kept = keep(count, config.drop_all, generator)
        text = all_kept & keep(count, config.drop_text, generator)
        with_regions = text & keep(count, config.drop_regions, generator)
        return cls(
            text=text,
            regions=with_regions[:, None] & (torch.rand(count, regions, generator=generator) >= config.drop_region),
            identity=all_kept & keep(count, config.drop_identity, generator) & bool(scale),
            fused=kind >= config.base_only,
            scale=scale,
        )

    def rows(self, chosen: Bool[Tensor, " b"] | Int[Tensor, " k"] | slice) -> Self:
        """The chosen samples."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in ("text", "regions", "identity")})

    def to(self, device: torch.device | str) -> Self:
        """On another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ("text", "regions", "identity")})

    def told(self, told: Told) -> Told:
        """What is left of what the prior knows."""
        people = torch.where(self.regions[..., None], told.regions, told.identity[:, None])
        appears = None if told.appears is None else told.appears & self.regions
        words = told.words * self.text[:, None]
        if told.mouth_words is not None:
            words = torch.where(words == 0, told.mouth_words * self.regions[:, _MOUTH, None], words)
        return Told(told.identity, words, people, told.appearance, appears)

    def of(self, batch: Batch) -> "Kept":
        """Without the regions that the batch does not have."""
        return replace(self, regions=self.regions & batch.valid)

    @property
    def somebody(self) -> Bool[Tensor, " b"]:
        """Whether anything is told of the person."""
        return self.identity | self.regions.any(1)


def keep(count: int, drop: float, generator: torch.Generator) -> Bool[Tensor, " b"]:
    """Which of some samples are not dropped."""
    return torch.rand(count, generator=generator) >= drop


@dataclass(frozen=True)
class ComparisonDraws(Rows):
    """What is random where regions are compared, for b samples; see `Compared`.

    Attributes:
        order: uniform in 0..1; the largest of those that may be chosen are compared.
        outlined: whether a region is compared in its outline.
        exaggerated: whether the compared regions have the largest weight.
    """

    order: Float[Tensor, "b n"]
    outlined: Bool[Tensor, "b n"]
    exaggerated: Bool[Tensor, " b"]


@dataclass(frozen=True)
class RolloutDraws(Rows):
    """What is random where portraits are judged on the model's own way down from noise; see `rollout`.

    Attributes:
        order: uniform in 0..1; the largest of those that may be chosen are rolled out.
        noise: standard normal, where the way begins.
        ends: share of the noise schedule where it ends.
        blends: share of the next sample in the compared regions, see `blended`.
    """

    order: Float[Tensor, " b"]
    noise: Float[Tensor, "b c h w"]
    ends: Float[Tensor, " b"]
    blends: Float[Tensor, " b"]


@dataclass(frozen=True)
class Draws(Rows):
    """Everything that is random in a step, for b samples.

    Attributes:
        noise: standard normal.
        timesteps: of the noise schedule.
        kept: conditions.
        everywhere: whether the noise loss looks at the whole picture, not at the person alone.
        jitter: standard normal; of the chips that the recogniser sees.
        comparison: None: regions are not compared.
        omission: uniform in 0..1, see `omission_losses`; None: no region is left out.
        rollout: None: no portraits are drawn from noise.
    """

    noise: Float[Tensor, "b c h w"]
    timesteps: Int[Tensor, " b"]
    kept: Kept
    everywhere: Bool[Tensor, " b"]
    jitter: Float[Tensor, "b 3"]
    comparison: ComparisonDraws | None = None
    omission: Float[Tensor, "b n"] | None = None
    rollout: RolloutDraws | None = None
