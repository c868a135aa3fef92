"""Black pictures are refused with their reason."""

import pytest
import torch

from consistentid.errors import NumbersOverflowed
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator


def test_latents_that_are_no_numbers(fresh_generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    with torch.no_grad():
        fresh_generator.pipeline.unet.conv_out.bias[0] = torch.nan
    for output_type in ("pil", "latent"):
        with pytest.raises(NumbersOverflowed, match="U-Net's numbers overflowed in float32"):
            fresh_generator.generate(drawn, "a person", steps=2, output_type=output_type)


def test_a_picture_that_the_autoencoder_blacks(fresh_generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    assert fresh_generator.generate(drawn, "a person", steps=1)[0].image.getextrema() != ((0, 0),) * 3
    vae = fresh_generator.pipeline.vae
    decode = vae.decode
    vae.decode = lambda *args, **kwargs: tuple(value * torch.nan for value in decode(*args, **kwargs))
    with pytest.raises(NumbersOverflowed, match="came out black: the autoencoder overflowed"):
        fresh_generator.generate(drawn, "a person", steps=1)
