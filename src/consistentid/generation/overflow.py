"""Black pictures, explained: what overflows in 16 bits becomes not a number, and that becomes black."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from consistentid.errors import NumbersOverflowed

_BLACK = ((0, 0), (0, 0), (0, 0))


def check_finite(latents: Tensor, *, unet: Any) -> None:
    """Look at the last latents of a run.

    Raises:
        NumbersOverflowed: some are no numbers.
    """
    if not torch.isfinite(latents).all():
        dtype = str(unet.dtype).removeprefix("torch.")
        raise NumbersOverflowed(
            f"the U-Net's numbers overflowed in {dtype}, so the picture would be black; use dtype bfloat16 or float32"
        )


def check_picture(picture: Image.Image, *, vae: Any) -> None:
    """Look at a decoded picture that the safety checker did not black.

    Raises:
        NumbersOverflowed: every pixel is black.
    """
    if picture.mode == "RGB" and picture.getextrema() == _BLACK:
        dtype = str(vae.dtype).removeprefix("torch.")
        raise NumbersOverflowed(
            f"the picture came out black: the autoencoder overflowed in {dtype}; load it in float32, or take one that "
            "is repaired for float16 (madebyollin/sdxl-vae-fp16-fix)"
        )
