"""The frozen base model that an adapter is trained on, and the adapter that the training starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from consistentid.errors import WeightsNotFound, first_line
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.checkpoint import load_adapter
from consistentid.identity.config import AdapterConfig
from consistentid.identity.layout import State
from consistentid.weight_files import read_weights

EMBEDDED = Path(__file__).resolve().parents[2] / "embedded"


@dataclass(frozen=True)
class BaseModel:
    """A Stable Diffusion pipeline's parts in float32, frozen."""

    unet: UNet2DConditionModel
    vae: Any
    text_encoders: tuple[PreTrainedModel, ...]
    tokenizers: tuple[CLIPTokenizer, ...]
    scheduler: DDPMScheduler

    @property
    def latent_scale(self) -> int:
        """Pixels of the picture for one of the latents, along a side."""
        config = self.vae.config
        blocks = config.get("block_out_channels") or config.encoder_block_out_channels
        return 2 ** (len(blocks) - 1)

    @torch.no_grad()
    def latents(self, pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Scaled latents of pictures: the mean of what the autoencoder says of each."""
        parameter = next(self.vae.parameters())
        values = (pixels.to(parameter.device).float() / 127.5 - 1).to(parameter.dtype)
        with torch.autocast(values.device.type, enabled=False):  # SDXL's overflows in half precision
            encoded = self.vae.encode(values)
        mean = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return mean.float() * self.vae.config.scaling_factor


def load_base(source: str, *, offline: bool = False) -> BaseModel:
    """Read a pipeline from a folder or the hub; `embedded` is the one in the package.

    Raises:
        WeightsNotFound: a part is missing, or there is no pipeline.
    """
    where = str(EMBEDDED) if source == "embedded" else source
    if where.endswith((".safetensors", ".ckpt")):
        raise WeightsNotFound(f"{source} is a single file; training reads folders: convert it with diffusers first")

    def part(kind: Any, name: str, **options: Any) -> Any:
        try:
            return kind.from_pretrained(where, subfolder=name, local_files_only=offline, **options)
        except (OSError, ValueError) as error:
            raise WeightsNotFound(
                f"no {name} of a Stable Diffusion pipeline in {source} ({first_line(error)}); give the folder or the "
                "hub id of one"
            ) from error

    from diffusers import AutoModel

    unet = part(UNet2DConditionModel, "unet", torch_dtype=torch.float32)
    encoders: dict[str, Any] = {"text_encoder": CLIPTextModel}
    if unet.config.addition_embed_type == "text_time":
        encoders["text_encoder_2"] = CLIPTextModelWithProjection
    return BaseModel(
        unet=unet.requires_grad_(False).train(),
        vae=part(AutoModel, "vae", torch_dtype=torch.float32).requires_grad_(False).eval(),
        text_encoders=tuple(
            part(kind, name, dtype=torch.float32).requires_grad_(False).eval() for name, kind in encoders.items()
        ),
        tokenizers=tuple(part(CLIPTokenizer, name.replace("text_encoder", "tokenizer")) for name in encoders),
        scheduler=part(DDPMScheduler, "scheduler"),
    )


def starting_adapter(
    config: AdapterConfig, unet: UNet2DConditionModel, *, start_from: Path | None, seed: int
) -> IdentityAdapter:
    """The adapter at the first step, in float32.

    Args:
        config: what it becomes.
        unet: of the base model.
        start_from: weights of an identity adapter; or IP-Adapter-FaceID-Plus weights, which lack a FacialEncoder.
        seed: of fresh weights.

    Raises:
        WeightsNotFound: the file is neither, or of another layout than the configuration says.
    """
    fresh = IdentityAdapter.new(config, unet, seed=seed)
    if start_from is None:
        return fresh
    state = _faceid_plus(start_from) or load_adapter(start_from).state()
    whole = {key: value.float() for key, value in (fresh.state() | state).items()}
    return IdentityAdapter.from_state(config, whole, source=str(start_from))


def _faceid_plus(path: Path) -> State | None:
    """The weights of IP-Adapter-FaceID-Plus under our names; None: the file is something else."""
    if not path.is_file():
        return None
    loaded = read_weights(path)
    parts: dict[str, Any] = {name: loaded.get(name) for name in ("image_proj", "ip_adapter")}
    if all(isinstance(part, dict) for part in parts.values()):
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}
    flat = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    if {key.partition(".")[0] for key in flat} == {"image_proj", "ip_adapter"}:
        return flat
    return None
