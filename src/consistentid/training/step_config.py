"""Settings of a training step."""

from typing import Literal, Self

from pydantic import Field, model_validator

from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.config import RegionStrength
from consistentid.training.conditions import ConditionDropout
from consistentid.training.losses import LOCALISATION_WEIGHT


class StepConfig(ConditionDropout):
    """How conditions are dropped (see `ConditionDropout`) and losses weighted.

    Attributes:
        foreground: the noise loss looks at the person only (the paper: 0.5).
        face_weight: added to the noise loss's weight of 1 where the face is.
        detail_weight: added likewise where eyes, nose or mouth are: a few pixels, and what people look at.
        weighting: of the noise loss over timesteps. Min-SNR weights fall to nothing at high noise, where layout and
            colours are decided: with velocity prediction, a model trained from scratch ignored its text (0.00001 of
            0.193 when texts were exchanged, after 22,000 samples). Use it to fine-tune, not to start.
        timestep_power: timesteps of the noise loss are u ** timestep_power of the schedule with u uniform; less than 1
            prefers high noise, where the conditions decide most.
        localisation_weight: of eq. 1; 0 leaves it out.
        share_weight: of the attention that each region's token gets in its region; 0 leaves it out.
        prior_weight: of following the identity prior; 0 leaves it out.
        prior_from: least share of the noise schedule at which it is followed by samples that show their reference.
        stranger_from: the same for strangers, whose noisy latents show somebody else when there is less noise.
        contrast_weight: of what a stranger's reference and text must change in the prediction, at any noise.
        omission_weight: of what a single region's token must change, see `omission`; 0 leaves it out.
        spill_weight: of the share of such a change that is where other regions are; 0 leaves it out.
        omissions: how many samples of a step are predicted again without one, at most.
        identity_weight: of whom the recogniser sees in the predicted clean latents; 0 leaves it out.
        regions_weight: of how FGIS's embedder sees one region in them; 0 leaves it out.
        drawn_identity_weight: of whom the recogniser sees in portraits drawn from noise, see `rollout`.
        drawn_regions_weight: of how FGIS's embedder sees regions in them.
        rollouts: how many samples of a step are drawn from noise, at most.
        blended: how often the compared regions of such a portrait are blends of two people's.
        compared: in how many regions each sample is.
        outlined: how often a region is seen in the parser's outline, not in a box.
        exaggerated: how often the tokens of the compared regions have the largest weight.
        region_strength: how far each region's token moves its word when its weight is 1, as `AdapterConfig` says of the
            finished model; 1, also for those left out, tells the tokens whole.
    """

    foreground: float = Field(default=0.5, ge=0, le=1)
    face_weight: float = Field(default=0.0, ge=0)
    detail_weight: float = Field(default=0.0, ge=0)
    weighting: Literal["plain", "min-snr"] = "plain"
    timestep_power: float = Field(default=1.0, gt=0, le=1)
    localisation_weight: float = Field(default=LOCALISATION_WEIGHT, ge=0)
    share_weight: float = Field(default=0.0, ge=0)
    prior_weight: float = Field(default=0.0, ge=0)
    prior_from: float = Field(default=0.5, ge=0, lt=1)
    stranger_from: float = Field(default=0.9, ge=0, lt=1)
    contrast_weight: float = Field(default=0.0, ge=0)
    omission_weight: float = Field(default=0.0, ge=0)
    spill_weight: float = Field(default=0.0, ge=0)
    omissions: int = Field(default=0, ge=0)
    identity_weight: float = Field(default=0.0, ge=0)
    regions_weight: float = Field(default=0.0, ge=0)
    drawn_identity_weight: float = Field(default=0.0, ge=0)
    drawn_regions_weight: float = Field(default=0.0, ge=0)
    rollouts: int = Field(default=0, ge=0)
    blended: float = Field(default=0.0, ge=0, le=1)
    compared: int = Field(default=1, ge=1, le=len(REGION_NAMES))
    outlined: float = Field(default=0.0, ge=0, le=1)
    exaggerated: float = Field(default=0.0, ge=0, le=1)
    region_strength: RegionStrength = Field(default_factory=dict)

    @model_validator(mode="after")
    def _draws_what_it_weighs(self) -> Self:
        if (self.rollouts > 0) != (self.drawn_identity_weight + self.drawn_regions_weight > 0):
            raise ValueError(
                "rollouts and one of drawn_identity_weight, drawn_regions_weight go together; give both or none"
            )
        return self

    @model_validator(mode="after")
    def _blends_what_it_draws(self) -> Self:
        if self.blended and not self.drawn_regions_weight:
            raise ValueError("blended needs regions compared in portraits drawn from noise; give drawn_regions_weight")
        return self

    @model_validator(mode="after")
    def _omits_what_it_weighs(self) -> Self:
        if (self.omissions > 0) != (self.omission_weight > 0):
            raise ValueError("omissions and omission_weight go together; give both or none")
        if self.spill_weight and not self.omissions:
            raise ValueError("spill_weight needs predictions without a region; give omissions and omission_weight")
        return self

    @property
    def looks_at_attention(self) -> bool:
        """Whether eq. 1 or the shares of attention have a say."""
        return self.localisation_weight + self.share_weight > 0

    @property
    def is_taught(self) -> bool:
        """Whether the identity prior has a say."""
        return self.prior_weight + self.contrast_weight + self.omission_weight > 0

    @property
    def is_recognised(self) -> bool:
        """Whether the recogniser or FGIS's embedder has a say."""
        return self.identity_weight + self.regions_weight > 0 or self.draws_portraits

    @property
    def draws_portraits(self) -> bool:
        """Whether they have a say on portraits drawn from noise."""
        return self.rollouts > 0

    @property
    def compares_regions(self) -> bool:
        """Whether it must be known how regions are to look."""
        return self.regions_weight + self.drawn_regions_weight > 0
