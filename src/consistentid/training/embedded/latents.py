"""Stage 3: latents of the targets, by the finished encoder."""

import zlib
from functools import reduce
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from consistentid.devices import is_fast_in_bfloat16
from consistentid.training.embedded.store import save_tensors


def latents_of(
    autoencoder: AutoencoderTiny, images: UInt8[Tensor, "n v s s 3"], *, folder: Path
) -> Float[Tensor, "n v 8 l l"]:
    """Scaled latents of all targets, kept in a folder for these images and this encoder."""
    checksum = weights_crc(autoencoder.encoder, zlib.crc32(images.numpy().data))
    path = folder / f"latents-{checksum:08x}.safetensors"
    if not path.is_file():
        latents = encode(autoencoder, images.flatten(0, 1)) * autoencoder.config.scaling_factor
        save_tensors({"latents": latents.half().unflatten(0, images.shape[:2])}, path)
    return load_file(path)["latents"]


def weights_crc(module: nn.Module, start: int = 0) -> int:
    """CRC-32 of all weights, after what was summed up before."""
    weights = (tensor.detach().contiguous().numpy() for tensor in module.state_dict().values())
    return reduce(lambda crc, one: zlib.crc32(one, crc), weights, start)


@torch.no_grad()
def encode(autoencoder: AutoencoderTiny, images: Tensor, *, batch: int = 64) -> Tensor:
    """Unscaled latents of uint8 images (n, s, s, 3)."""
    parts = []
    for chunk in images.split(batch):
        pixels = (chunk.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=is_fast_in_bfloat16(pixels.device)):
            parts.append(autoencoder.encode(pixels).latents.float())
    return torch.cat(parts)
