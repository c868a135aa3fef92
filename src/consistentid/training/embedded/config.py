"""Configuration of the embedded model's training chain."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consistentid.identity.config import RegionStrength
from consistentid.training.loop_config import LoopConfig
from consistentid.training.step_config import StepConfig


class AdapterSizes(BaseModel):
    """Sizes of the identity adapter; the rest follows from the recogniser and the text encoder."""

    model_config = ConfigDict(extra="forbid")

    projector_width: int = 192
    facial_width: int = 192
    facial_depth: int = 2
    lora_rank: int = 16


class SimpleStage(BaseModel):
    """A stage that only needs the loop: autoencoder, parser, decoder, warm-ups of text encoder and FacialEncoder."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig
    batch_size: int = 16


class StoreConfig(BaseModel):
    """How many variants of each photo are computed once; composites show regions of another photo as well."""

    model_config = ConfigDict(extra="forbid")

    target_variants: int = Field(default=6, ge=2)
    composite_variants: int = Field(default=0, ge=0)
    reference_variants: int = Field(default=4, ge=2, multiple_of=2)
    processes: int = Field(default=2, gt=0)


class DiffusionStage(BaseModel):
    """A stage on the U-Net.

    Attributes:
        train: parts whose weights change; `base` is the U-Net itself.
        contradict: see `StoreSampler.contradict`.
        composites: see `StoreSampler.composites`; needs `store.composite_variants`.
        mixed: see `StoreSampler.mixed`.
        quiet: see `StoreSampler.quiet`.
        appearance: whether the identity prior also says what the images of regions show.
        strangers: see `StoreSampler.strangers`; without `step.prior_weight` and `step.contrast_weight` these
            samples teach nothing.
    """

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig
    step: StepConfig
    train: tuple[Literal["base", "text_encoder", "facial_encoder", "projector", "kv", "lora"], ...]
    batch_size: int = 32
    contradict: float = Field(default=0.5, ge=0, le=1)
    strangers: float = Field(default=0.0, ge=0, le=0.5)
    composites: float = Field(default=0.0, ge=0, le=1)
    mixed: float = Field(default=0.2, ge=0, le=1)
    quiet: float = Field(default=0.0, ge=0, le=1)
    appearance: bool = False

    @model_validator(mode="after")
    def _base_only_trains_something(self) -> Self:
        if self.step.base_only and not {"base", "text_encoder"} & set(self.train):
            raise ValueError("step.base_only leaves the adapter out; train base or text_encoder, or set it to 0")
        return self

    @model_validator(mode="after")
    def _omissions_are_expected(self) -> Self:
        if self.step.omissions and not self.appearance:
            raise ValueError("step.omissions asks for what images of regions let expect; set appearance: true")
        return self


class EmbeddedConfig(BaseModel):
    """The whole chain; every stage resumes where it was stopped."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["embedded"]
    photos: Path | None = Field(default=None, description="folder of photos; the command line may give it instead")
    out: Path = Path("runs/embedded")
    start_from: Path | None = Field(
        default=None,
        description="folder of a finished model: its autoencoder, parser and tokenizer are kept, its U-Net trained on",
    )
    fresh: bool = Field(
        default=False, description="with start_from: U-Net, text encoder and adapter begin anew all the same"
    )
    threads: int = Field(default=2, gt=0)
    adapter: AdapterSizes = AdapterSizes()
    region_strength: RegionStrength | None = Field(
        default=None, description="of the finished model, see `AdapterConfig`; None: as it was before"
    )
    store: StoreConfig = StoreConfig()
    autoencoder: SimpleStage
    parser: SimpleStage
    decoder: SimpleStage | None = Field(default=None, description="trains the decoder on; None: it stays as it was")
    text: SimpleStage
    tokens: SimpleStage
    diffusion: dict[str, DiffusionStage] = Field(description="stages on the U-Net, in order")

    @model_validator(mode="after")
    def _composites_are_made(self) -> Self:
        if not self.store.composite_variants and any(stage.composites for stage in self.diffusion.values()):
            raise ValueError("a stage draws composites; set store.composite_variants, 4 for example")
        return self

    @model_validator(mode="after")
    def _fresh_needs_a_start(self) -> Self:
        if self.fresh and self.start_from is None:
            raise ValueError("fresh says what to leave of the model in start_from; name its folder or drop fresh")
        return self
