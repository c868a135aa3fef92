"""The layouts of SD 1.5 and SDXL as configurations, so that a single file of weights needs nothing from the hub."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

BaseLayout = Literal["sd15", "sdxl"]
Configs = dict[str, dict[str, Any]]

_NOISE: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
}  # fmt: skip
# eos 2 is what the hub's configurations say: the text encoder then takes the largest id as the end of the text, also
# where a text was cut without one.
_CLIP_L: dict[str, Any] = {
    "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
    "projection_dim": 768, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 32, "act_fn": "silu",
}  # fmt: skip
_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "norm_num_groups": 32, "act_fn": "silu", "flip_sin_to_cos": True, "freq_shift": 0,
}  # fmt: skip
_TOKENIZER: dict[str, Any] = {
    "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
}  # fmt: skip

LAYOUTS: dict[BaseLayout, Configs] = {
    "sd15": {
        "model_index": {
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None], "feature_extractor": [None, None],
            "image_encoder": [None, None], "requires_safety_checker": False,
        },
        "unet": {
            **_UNET, "sample_size": 64, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
            "attention_head_dim": 8, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        },
        "vae": {**_VAE, "sample_size": 512, "scaling_factor": 0.18215},
        "text_encoder": {**_CLIP_L, "architectures": ["CLIPTextModel"]},
        "scheduler": {
            **_NOISE, "_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False,
            "clip_sample": False,
        },
        "tokenizer": _TOKENIZER,
    },
    "sdxl": {
        "model_index": {
            "_class_name": "StableDiffusionXLPipeline",
            "scheduler": ["diffusers", "EulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
            "image_encoder": [None, None], "feature_extractor": [None, None], "force_zeros_for_empty_prompt": True,
        },
        "unet": {
            **_UNET, "sample_size": 128, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
            "attention_head_dim": [5, 10, 20], "transformer_layers_per_block": [1, 2, 10],
            "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        },
        "vae": {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        "text_encoder": {**_CLIP_L, "architectures": ["CLIPTextModel"]},
        "text_encoder_2": {
            **_CLIP_L, "architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
            "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu",
            "projection_dim": 1280,
        },
        "scheduler": {**_NOISE, "_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear"},
        "tokenizer": _TOKENIZER,
        "tokenizer_2": {**_TOKENIZER, "pad_token": "!"},
    },
}  # fmt: skip

_FILES = {"unet": "config", "vae": "config", "scheduler": "scheduler_config", "tokenizer": "tokenizer_config"}


def write_layout(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a diffusers folder without weights: what `from_single_file` reads besides the file.

    Args:
        folder: gets `model_index.json` and one folder for each part.
        configs: one of `LAYOUTS`, or one with other sizes.
    """
    for part, config in configs.items():
        name = _FILES.get(part.removesuffix("_2"), "config")
        path = folder / ("model_index.json" if part == "model_index" else f"{part}/{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
        if part.startswith("tokenizer"):
            merges = files("consistentid.generation").joinpath("clip_merges.txt").read_text(encoding="utf-8")
            (path.parent / "merges.txt").write_text(merges, encoding="utf-8")
            (path.parent / "vocab.json").write_text(json.dumps(clip_vocabulary(merges)), encoding="utf-8")


def clip_vocabulary(merges: str) -> dict[str, int]:
    """CLIP's tokens and their ids: every byte, every byte that ends a word, every merge, the two ends of a text."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    pairs = [line.split() for line in merges.splitlines()[1:] if line]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in pairs), *ends]
    return {token: index for index, token in enumerate(tokens)}
