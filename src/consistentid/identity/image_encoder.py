"""Image encoders behind one protocol: images -> hidden states for the projector and the FacialEncoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistentid.errors import WeightsNotFound, first_line
from consistentid.identity.config import ImageEncoderConfig


class ImageEncoder(Protocol):
    """Frozen network that describes images.

    Attributes:
        hidden_size: channels of a hidden state.
        num_tokens: hidden states per image.
        image_size: side of the pixel values in `pixels`.
    """

    @property
    def hidden_size(self) -> int: ...  # noqa: D102

    @property
    def num_tokens(self) -> int: ...  # noqa: D102

    @property
    def image_size(self) -> int: ...  # noqa: D102

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "b 3 s s"]:
        """Pre-processed pixel values of RGB images."""
        ...

    def encode(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        """Hidden states of pre-processed images, without gradients."""
        ...


class ClipPixels:
    """CLIP's preprocessing, without the model, so that it travels to other processes.

    Args:
        side: of the pixel values.
    """

    def __init__(self, side: int) -> None:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self._processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "b 3 s s"]:
        """See `ImageEncoder.pixels`: shortest side resized (bicubic), centre crop, normalised."""
        values: Tensor = self._processor([image.convert("RGB") for image in images], return_tensors="pt").pixel_values
        return values


class ClipImageEncoder:
    """Penultimate hidden states of a CLIP vision tower, as the released checkpoints use ViT-H/14.

    Args:
        model: a `CLIPVisionModelWithProjection`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        vision = model.config
        self.hidden_size: int = vision.hidden_size
        self.num_tokens: int = (vision.image_size // vision.patch_size) ** 2 + 1
        self.image_size: int = vision.image_size
        self.pixels = ClipPixels(self.image_size)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, dtype: torch.dtype = torch.float32, offline: bool = False) -> Self:
        """Read a local folder or a hub id; offline, from the hub's cache only.

        Raises:
            WeightsNotFound: there is no CLIP vision tower.
        """
        from safetensors import SafetensorError
        from transformers import CLIPVisionModelWithProjection

        try:
            return cls(CLIPVisionModelWithProjection.from_pretrained(source, dtype=dtype, local_files_only=offline))
        except (OSError, ValueError, SafetensorError) as error:
            raise WeightsNotFound(
                f"no CLIP image encoder in {source} ({first_line(error)}); give the folder or hub id of one (the "
                "released checkpoints use laion/CLIP-ViT-H-14-laion2B-s32B-b79K)"
            ) from error

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        """See `ImageEncoder.encode`; the last layer, whose output is not asked for, does not run."""
        pixels = pixels.to(device=self.model.device, dtype=self.model.dtype)
        tower = self.model.vision_model
        states: Tensor = tower.pre_layrnorm(tower.embeddings(pixels))
        for layer in tower.encoder.layers[:-1]:
            states = layer(states, attention_mask=None)
        return states


def image_encoder_for(
    config: ImageEncoderConfig, *, device: torch.device | str = "cpu", offline: bool = False
) -> ImageEncoder:
    """The encoder that an adapter was trained with; offline, nothing is downloaded."""
    if config.kind == "dlib":
        from consistentid.identity.dlib_image_encoder import DlibImageEncoder

        return DlibImageEncoder(device=device)
    if config.source is None:
        raise WeightsNotFound("the adapter names no folder of its CLIP image encoder; set image_encoder.source")
    encoder = ClipImageEncoder.from_pretrained(config.source, offline=offline)
    encoder.model.to(device)
    return encoder


def zero_features(encoder: ImageEncoder) -> Float[Tensor, "t d"]:
    """Hidden states of all-zero pixel values: the features of the guidance branch and of a dropped image."""
    side = encoder.image_size
    return encoder.encode(torch.zeros(1, 3, side, side))[0]
