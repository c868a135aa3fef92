"""An image encoder that describes the same images once."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistentid.identity.checksum import WeightsChecksum
from consistentid.identity.image_encoder import ImageEncoder
from consistentid.identity.tensor_cache import TensorCache


class CachedImageEncoder:
    """Keeps the hidden states of whole batches by content: pixels, weights, and what decides about the last bits.

    Args:
        encoder: does the work; without an attribute `model` or `network` that holds its weights, its results are not
            kept on the disk.
        cache: where they are kept.
    """

    def __init__(self, encoder: ImageEncoder, cache: TensorCache) -> None:
        self.encoder = encoder
        self.cache = cache
        self.hidden_size = encoder.hidden_size
        self.num_tokens = encoder.num_tokens
        self.image_size = encoder.image_size
        self._checksum = WeightsChecksum()

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "b 3 s s"]:
        """See `ImageEncoder.pixels`."""
        return self.encoder.pixels(images)

    def encode(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        """See `ImageEncoder.encode`."""
        weights = self.weights_checksum()
        pixels_sha256 = hashlib.sha256(pixels.cpu().contiguous().numpy().data).hexdigest()
        features = self.cache.get(
            ("image features", pixels_sha256, tuple(pixels.shape), weights, torch.get_num_threads(), torch.__version__),
            lambda: {"features": self.encoder.encode(pixels)},
            keep_file=weights is not None,
        )
        return features["features"]

    def weights_checksum(self) -> str | None:
        """Of the encoder's weights; None when they cannot be seen."""
        network: Any = getattr(self.encoder, "model", None) or getattr(self.encoder, "network", None)
        if network is None:
            return None
        sums = self._checksum.of("weights", network.state_dict())
        return None if sums is None else f"{sums} {next(network.parameters()).device}"
