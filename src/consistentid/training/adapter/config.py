"""Configuration of training an identity adapter on a base model."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consistentid.identity.config import AdapterConfig, Quirks
from consistentid.training.loop_config import LoopConfig
from consistentid.training.step_config import StepConfig

Group = Literal["facial_encoder", "projector", "kv", "lora"]


class PhotoConfig(BaseModel):
    """How photos become targets and references."""

    model_config = ConfigDict(extra="forbid")

    framing: Literal["photo", "face"] = Field(
        default="photo", description="as much of the photo as fits, or the square in which the face always lies alike"
    )
    resolution: int = Field(default=512, gt=0, multiple_of=8, description="square root of the target's pixels")
    buckets: bool = Field(default=True, description="photos that are not square stay so; needs framing: photo")
    other_photo: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="how often the reference is another photo of the person, if there is one",
    )
    mirror: bool = Field(default=True, description="every second target and reference is mirrored")
    jitter: bool = Field(default=True, description="colours of references change, as with another camera and light")
    without_caption: float = Field(default=0.1, ge=0, le=1, description="how often the text is the prompt alone")

    @model_validator(mode="after")
    def _only_photos_have_proportions(self) -> Self:
        if self.framing == "face" and self.buckets:
            raise ValueError("framing: face cuts squares; set buckets: false")
        return self


class MemoryConfig(BaseModel):
    """How much memory is given for speed."""

    model_config = ConfigDict(extra="forbid")

    gradient_checkpointing: bool = False
    frozen_precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="of the weights that are not trained; auto: that of the computation"
    )


class PrecomputeConfig(BaseModel):
    """Latents and image features computed once, instead of in every step."""

    model_config = ConfigDict(extra="forbid")

    folder: Path
    variants: int = Field(default=2, gt=0, description="of each photo: every second is mirrored, references also vary")


class AdapterTrainingConfig(BaseModel):
    """Everything about a run."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["adapter"]
    dataset: Path = Field(description="what `consistentid dataset build` wrote")
    out: Path
    base: str = Field(description="embedded, a folder, or the hub id of a Stable Diffusion 1.5 or SDXL pipeline")
    adapter: dict[str, Any] = Field(description="base: sd15, sdxl or embedded; and what differs from its layout")
    start_from: Path | None = Field(
        default=None,
        description="IP-Adapter-FaceID-Plus weights, a released checkpoint, or the folder of an adapter (embedded)",
    )
    image_encoder: str | None = Field(default=None, description="folder or hub id, instead of the layout's")
    offline: bool = Field(default=False, description="never download")
    train: tuple[Group, ...] = ("facial_encoder", "projector", "kv", "lora")
    localised_blocks: tuple[str, ...] | None = Field(
        default=None, description="U-Net blocks whose cross-attention eq. 1 looks at; none given: all of them"
    )
    batch_size: int = Field(default=16, gt=0, description="photos of one pass on one process")
    workers: int = Field(default=2, ge=0, description="processes that prepare photos beside the training")
    photos: PhotoConfig = PhotoConfig()
    memory: MemoryConfig = MemoryConfig()
    precompute: PrecomputeConfig | None = None
    held_out: int = Field(default=64, ge=0, description="photos of held-out people that validation looks at")
    loop: LoopConfig
    step: StepConfig

    @property
    def layout(self) -> AdapterConfig:
        """The adapter's configuration, in aligned mode."""
        changes: dict[str, Any] = dict(self.adapter)
        base = changes.pop("base", None)
        quirks = {"text_layer": -2 if base == "sdxl" else -1, **changes.pop("quirks", {})}
        if self.image_encoder is not None:
            changes["image_encoder"] = {"kind": "clip", "source": self.image_encoder}
        return AdapterConfig.preset(base, **{"mode": "aligned", "quirks": Quirks(**quirks), **changes})

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        if self.adapter.get("base") not in ("sd15", "sdxl", "embedded"):
            raise ValueError("adapter.base must be sd15, sdxl or embedded")
        if "mode" in self.adapter:
            raise ValueError("adapter.mode: adapters are trained in aligned mode; leave it out")
        if self.step.is_taught or self.step.is_recognised:
            raise ValueError(
                "step: prior_weight, contrast_weight, omission_weight, identity_weight, regions_weight, "
                "drawn_identity_weight and drawn_regions_weight are for kind: embedded; leave them out"
            )
        if not isinstance(self.adapter.get("quirks", {}), dict):
            raise ValueError("adapter.quirks must name quirks and their values")
        if self.memory.frozen_precision in ("bf16", "fp16") and self.loop.mixed_precision not in (
            "auto",
            self.memory.frozen_precision,
        ):
            raise ValueError("memory.frozen_precision below fp32 needs the same loop.mixed_precision")
        if self.layout.quirks.region_pairing != "name":
            raise ValueError("adapters are trained with region_pairing: name; the release's pairing mixes regions up")
        if not self.train:
            raise ValueError("train names no part; take some of facial_encoder, projector, kv and lora")
        return self
