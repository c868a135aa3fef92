"""The finished model as a folder: a normal StableDiffusionPipeline, its identity adapter and its face parser."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from transformers import CLIPTokenizer, SegformerForSemanticSegmentation

from consistentid.identity.config import RegionStrength
from consistentid.training.prediction import TrainingModels


def export_model(
    target: Path,
    *,
    models: TrainingModels,
    autoencoder: AutoencoderTiny,
    tokenizer: CLIPTokenizer,
    parser: SegformerForSemanticSegmentation,
    region_strength: RegionStrength | None = None,
) -> None:
    """Write the folder in fp16 safetensors, replacing an older one only when all is written.

    Works on copies, so that training can go on; there the adapter is detached, because the U-Net's folder holds the
    base model alone. A `region_strength` of None leaves the adapter's.
    """
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    unet, text_encoder, adapter, autoencoder, parser = deepcopy(
        (models.unet, models.text_encoders[0], models.adapter, autoencoder, parser)
    )
    adapter.detach()
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.to(memory_format=torch.contiguous_format),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet.to(memory_format=torch.contiguous_format),
        scheduler=models.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(temporary, safe_serialization=True)
    _computed_in_float32(temporary / "text_encoder" / "config.json")
    adapter.load_state({name: value.half() for name, value in adapter.state().items()})
    adapter.facial_encoder.half()
    if region_strength is not None:
        adapter.config = adapter.config.model_copy(update={"region_strength": region_strength})
    adapter.save_pretrained(temporary / "adapter")
    parser.half().save_pretrained(temporary / "parser", safe_serialization=True)
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)


def save_whole(model: AutoencoderTiny | SegformerForSemanticSegmentation, folder: Path) -> None:
    """Write one network's folder, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    temporary.rename(folder)


def _computed_in_float32(config: Path) -> None:
    """Let transformers read the half-precision weights as diffusers does, whose networks become float32."""
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
