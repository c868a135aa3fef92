"""Models of the real layouts with random weights, made without the usual initialisation, which takes minutes.

Times and memory do not depend on the values, as long as they stay finite.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.config import AdapterConfig, Family
from consistentid.identity.image_encoder import ClipImageEncoder

TOKENIZER = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "parity" / "tokenizer"
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
    "sdxl": {
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "sample_size": 128,
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip


def filled(make: Any, dtype: torch.dtype = torch.float32) -> Any:
    """The model that `make` builds, with matrices scaled by the fan-in, norms of 1 and biases of 0."""
    with torch.device("meta"):
        model = make()
    model = model.to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    for name, value in model.named_parameters():
        if value.ndim < 2:
            value.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            _repeat(noise * value[0].numel() ** -0.5, value)
    for name, value in model.named_buffers():
        if name.endswith("position_ids"):
            value.copy_(torch.arange(value.shape[-1]))
    return model


def unet(base: str, dtype: torch.dtype = torch.float32) -> Any:
    """The U-Net of SD 1.5 (860 M parameters) or SDXL (2,567 M)."""
    from diffusers import UNet2DConditionModel

    return filled(lambda: UNet2DConditionModel(**UNETS[base]), dtype)


def sd15_pipeline() -> Any:
    """All of Stable Diffusion 1.5."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    blocks = {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=filled(lambda: AutoencoderKL(**blocks)),
        text_encoder=filled(lambda: CLIPTextModel(text)),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        unet=unet("sd15"),
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def clip_vit_h() -> ClipImageEncoder:
    """The image encoder of the release, 632 M parameters."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, image_size=224,
        patch_size=14, projection_dim=1024,
    )  # fmt: skip
    return ClipImageEncoder(filled(lambda: CLIPVisionModelWithProjection(vision)))


def released_state(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> Any:
    """Random tensors under the names of a released file, part by part."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(1)).to(dtype)
    for key, shape in shapes.items():
        part, _, name = key.partition(".")
        value = torch.empty(shape, dtype=dtype)
        _repeat(noise * (0.5 * value[0].numel() ** -0.5 if value.ndim > 1 else 0.1), value)
        parts.setdefault(part, {})[name] = value
    return parts


def adapter(base: Family, model: nn.Module) -> IdentityAdapter:
    """An identity adapter of the released layout for a U-Net."""
    return IdentityAdapter.new(AdapterConfig.preset(base), model)


def num_bytes(tensors: Any) -> int:
    """Memory of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _repeat(noise: torch.Tensor, value: torch.Tensor) -> None:
    flat = value.detach().view(-1)
    for start in range(0, len(flat), len(noise)):
        part = flat[start : start + len(noise)]
        part.copy_(noise[: len(part)])
