"""Everything that distinguishes one identity adapter from another, saved as `config.json` beside its weights."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from consistentid.errors import WeightsNotFound
from consistentid.faces.regions import REGION_NAMES

HEAD_WIDTH = 64  # of every attention head in the projector and the FacialEncoder; diffusers' loader assumes it
NUM_IDENTITY_TOKENS = 4  # the IP-Adapter-FaceID-Plus loader of diffusers knows no other number
PROJECTOR_DEPTH = 4  # likewise
Family = Literal["sd15", "sdxl", "embedded"]
MAX_STRENGTH = 2.0  # of a region, see `AdapterConfig.region_strength`


def _by_region(given: object) -> object:
    """A single number is for all regions."""
    if isinstance(given, dict):
        return given
    if isinstance(given, int | float):
        return dict.fromkeys(REGION_NAMES, given)
    raise ValueError("give a number, or numbers by region")


def _checked_strengths(given: dict[str, float]) -> dict[str, float]:
    unknown = sorted(set(given) - set(REGION_NAMES))
    if unknown:
        raise ValueError(f"unknown region {unknown[0]!r}; choose from {', '.join(REGION_NAMES)}")
    if not all(0 < strength <= MAX_STRENGTH for strength in given.values()):
        raise ValueError(f"strengths of regions are above 0 and at most {MAX_STRENGTH}")
    return given


RegionStrength = Annotated[dict[str, float], BeforeValidator(_by_region), AfterValidator(_checked_strengths)]


class Quirks(BaseModel):
    """How the data was made that the weights were trained with; every switch changes what the weights expect.

    The defaults are the aligned mode, used for weights trained by this project. `official_sd15` and `official_sdxl`
    repeat what the released checkpoints were trained with (see docs: the method, section 3).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_style: Literal["aligned", "official_sd15", "official_sdxl"] = Field(
        "aligned", description="captions are worded, ordered and cut as in training"
    )
    reference: Literal["aligned_face", "photo"] = Field(
        "aligned_face", description="the encoder saw the upright face and head, or (release) all of the photo"
    )
    region_pairing: Literal["name", "position"] = Field(
        "name", description="a word gets its own region's image, or (release) the image at the same position in a list"
    )
    face: Literal["largest", "surest"] = Field(
        "largest", description="of several, when nobody chose one: the release takes the detector's first, its surest"
    )
    channel_order: Literal["rgb", "bgr"] = Field(
        "rgb", description="the recogniser's input; the SD 1.5 release feeds RGB to a network made for BGR"
    )
    parser_size: int | None = Field(
        None, gt=0, description="side to which the release stretches the photo before parsing; None: the photo's own"
    )
    text_layer: int = Field(
        -1, le=-1, description="hidden state of the text encoders, -2 = the penultimate (SDXL, both streams)"
    )
    negative_regions: bool = Field(
        False, description="the release fuses zero-image regions into the negative prompt at the positive positions"
    )


OFFICIAL_SD15 = Quirks(
    prompt_style="official_sd15", reference="photo", region_pairing="position",
    face="surest", parser_size=512, negative_regions=True,
)  # fmt: skip
OFFICIAL_SDXL = Quirks(
    prompt_style="official_sdxl", reference="photo", region_pairing="position",
    face="surest", channel_order="bgr", parser_size=1280, text_layer=-2,
    negative_regions=True,
)  # fmt: skip


class ImageEncoderConfig(BaseModel):
    """Which image encoder the adapter was trained with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["clip", "dlib"] = "clip"
    source: str | None = Field(None, description="folder or hub id; None: weights of an installed package")


class AdapterConfig(BaseModel):
    """Dimensions and conventions of an identity adapter.

    Attributes:
        mode: official (a released checkpoint, with its quirks) or aligned (trained by this project).
        base: family of the base model.
        identity_dim: length of the recogniser's embedding.
        image_dim: channels of the image encoder's hidden states.
        image_tokens: hidden states per image.
        text_dim: width of the U-Net's cross-attention context.
        projector_width: width of the projector; a multiple of 64.
        facial_width: width of the FacialEncoder's perceiver; a multiple of 64.
        facial_depth: its number of layers.
        lora_rank: rank of the LoRAs on q, k, v and out of every attention layer.
        shortcut: whether the projector adds its input tokens to its output.
        merge_fraction: share of the steps run that have no region features, unless the caller says otherwise.
        caption: the fixed caption that the weights were trained with; None: that of the describer, else of the style.
        identity_scale: weight of the identity tokens, unless the caller says otherwise.
        region_strength: how far each region's token moves its word when its weight is 1; 1, also for those left out, is
            as the FacialEncoder says. A single number is for all. In training it is 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    mode: Literal["official", "aligned"] = "aligned"
    base: Family
    identity_dim: int = Field(gt=0)
    image_dim: int = Field(gt=0)
    image_tokens: int = Field(gt=0)
    text_dim: int = Field(gt=0)
    projector_width: int = Field(gt=0, multiple_of=HEAD_WIDTH)
    facial_width: int = Field(gt=0, multiple_of=HEAD_WIDTH)
    facial_depth: int = Field(gt=0)
    lora_rank: int = Field(gt=0)
    shortcut: bool = False
    merge_fraction: float = Field(0.6, ge=0, le=1)
    caption: str | None = None
    identity_scale: float = Field(1.0, ge=0)
    region_strength: RegionStrength = Field(default_factory=dict)
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    quirks: Quirks = Quirks()

    @model_validator(mode="after")
    def _shortcut_needs_equal_widths(self) -> Self:
        if self.shortcut and self.projector_width != self.text_dim:
            raise ValueError("shortcut adds tokens of projector_width to tokens of text_dim; make them equal")
        return self

    @property
    def num_identity_tokens(self) -> int:
        """Identity tokens per photo."""
        return NUM_IDENTITY_TOKENS

    def strength_of(self, region: str) -> float:
        """See `region_strength`."""
        return self.region_strength.get(region, 1.0)

    def merge_step(self, steps: int) -> int:
        """Default merge step (the last one without region features); -1 when all steps have them."""
        return round(self.merge_fraction * steps) if self.merge_fraction > 0 else -1

    @classmethod
    def preset(cls, base: Family, **changes: Any) -> Self:
        """The released layouts (`sd15`, `sdxl`) or the embedded model's, with changes."""
        return cls.model_validate({**_PRESETS[base], "base": base, **changes})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `config.json`.

        Raises:
            WeightsNotFound: the file is missing or does not describe an adapter of this version.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise WeightsNotFound(f"{path} does not exist; give the folder of an identity adapter") from None
        except ValidationError as error:
            raise WeightsNotFound(f"{path} is no adapter configuration: {_first_problem(error)}") from error

    def to_json(self) -> str:
        """The text of a `config.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "whole file"
    return f"{where}: {first['msg']}"


_CLIP_H: dict[str, Any] = {
    "mode": "official", "identity_dim": 512, "image_dim": 1280, "image_tokens": 257, "facial_width": 1024,
    "facial_depth": 8, "lora_rank": 128,
    "image_encoder": {"kind": "clip", "source": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"},
}  # fmt: skip
_PRESETS: dict[str, dict[str, Any]] = {
    "sd15": {**_CLIP_H, "text_dim": 768, "projector_width": 768, "quirks": OFFICIAL_SD15},
    "sdxl": {**_CLIP_H, "text_dim": 2048, "projector_width": 2048, "shortcut": True, "quirks": OFFICIAL_SDXL},
    "embedded": {
        "identity_dim": 128, "image_dim": 448, "image_tokens": 64, "text_dim": 256, "projector_width": 256,
        "facial_width": 256, "facial_depth": 2, "lora_rank": 16, "merge_fraction": 0.1,
        "image_encoder": {"kind": "dlib"},
    },
}  # fmt: skip
