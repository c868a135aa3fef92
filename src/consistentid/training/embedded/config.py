"""Configuration of the embedded model's training chain."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from consistentid.identity.config import RegionStrength
from consistentid.training.conditions import ConditionDropout
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


class SampledStage(BaseModel):
    """A stage on the U-Net.

    Attributes:
        train: parts whose weights change; `base` is the U-Net itself.
        contradict: see `StoreSampler.contradict`.
        composites: see `StoreSampler.composites`; needs `store.composite_variants`.
        mixed: see `StoreSampler.mixed`.
        quiet: see `StoreSampler.quiet`.
        strangers: see `StoreSampler.strangers`.
    """

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig
    train: tuple[Literal["base", "text_encoder", "facial_encoder", "projector", "kv", "lora"], ...]
    batch_size: int = 32
    contradict: float = Field(default=0.5, ge=0, le=1)
    strangers: float = Field(default=0.0, ge=0, le=0.5)
    composites: float = Field(default=0.0, ge=0, le=1)
    mixed: float = Field(default=0.2, ge=0, le=1)
    quiet: float = Field(default=0.0, ge=0, le=1)

    @property
    def sampled(self) -> dict[str, float]:
        """Shares of a `StoreSampler`."""
        return self.model_dump(include={"contradict", "strangers", "composites", "mixed", "quiet"})


class DiffusionStage(SampledStage):
    """A stage of `training_step`; its strangers teach nothing without `step.prior_weight` and `step.contrast_weight`.

    Attributes:
        step: losses.
        appearance: whether the identity prior also says what the images of regions show.
    """

    step: StepConfig
    appearance: bool = False

    @model_validator(mode="after")
    def _base_only_trains_something(self) -> Self:
        _check_base_only(self.step, self.train, "step")
        return self

    @model_validator(mode="after")
    def _omissions_are_expected(self) -> Self:
        if self.step.omissions and not self.appearance:
            raise ValueError("step.omissions asks for what images of regions let expect; set appearance: true")
        return self


class AnchoredStage(SampledStage):
    """A stage that is held to the model it starts from, see `anchored`.

    Attributes:
        drop: how conditions are dropped.
        shown: how much of what the prior expects of a region's image is added, by region.
        new: regions whose tokens say nothing in the model it starts from, which is not told them.
    """

    drop: ConditionDropout
    shown: RegionStrength
    new: tuple[Literal["face", "ears", "eyes", "nose", "mouth"], ...] = ()

    @model_validator(mode="after")
    def _base_only_trains_something(self) -> Self:
        _check_base_only(self.drop, self.train, "drop")
        return self


def _check_base_only(dropout: ConditionDropout, trained: Iterable[str], name: str) -> None:
    if dropout.base_only and not {"base", "text_encoder"} & set(trained):
        raise ValueError(f"{name}.base_only leaves the adapter out; train base or text_encoder, or set it to 0")


def _kind(given: object) -> str:
    """Which stage is meant: what is wrong in it is said of that kind alone."""
    anchored = {"drop", "shown", "new"} & given.keys() if isinstance(given, dict) else isinstance(given, AnchoredStage)
    return "anchored" if anchored else "losses"


UNetStage = Annotated[
    Annotated[DiffusionStage, Tag("losses")] | Annotated[AnchoredStage, Tag("anchored")], Discriminator(_kind)
]


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
    diffusion: dict[str, UNetStage] = Field(description="stages on the U-Net, in order")

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

    @property
    def asks_for_appearance(self) -> bool:
        """Whether the identity prior must know what images of regions show."""
        return any(isinstance(stage, AnchoredStage) or stage.appearance for stage in self.diffusion.values())

    @property
    def compares_regions(self) -> bool:
        """Whether it must be known how regions are to look."""
        stages = [stage for stage in self.diffusion.values() if isinstance(stage, DiffusionStage)]
        return any(stage.step.compares_regions for stage in stages)
