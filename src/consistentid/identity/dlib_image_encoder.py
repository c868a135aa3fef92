"""Image encoder of the embedded model: feature maps of dlib's face recogniser.

CLIP ViT-H cannot be shipped in a small package, and an encoder trained on 2,700 people would not know a stranger's
face. The recogniser was trained on three million photos, its weights are CC0 and come with face-recognition-models.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from consistentid.faces.detection import dlib_weights
from consistentid.faces.dlib_resnet import CHIP_SIZE, DlibFaceResNet

_LEVELS = (6, 9, 12)  # last blocks of 64, 128 and 256 channels: eyelashes, parts, the whole face
_GRID = 8


class DlibImageEncoder:
    """Images of 150 x 150 -> 64 hidden states (an 8 x 8 grid, row by row) of 448 channels."""

    hidden_size = 64 + 128 + 256
    num_tokens = _GRID * _GRID
    image_size = CHIP_SIZE

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    @cached_property
    def network(self) -> DlibFaceResNet:
        """The recogniser, read on first use."""
        path = dlib_weights("dlib_face_recognition_resnet_model_v1.dat")
        network = DlibFaceResNet.from_dat(path).to(self.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "b 3 150 150"]:
        """RGB images -> pixel values in 0..1; other sizes are resized."""
        size = (self.image_size, self.image_size)
        resized = [image if image.size == size else image.resize(size, Image.Resampling.BICUBIC) for image in images]
        arrays = np.stack([np.asarray(image.convert("RGB")) for image in resized])
        return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "b 3 150 150"]) -> Float[Tensor, "b 64 448"]:
        """Hidden states of a batch."""
        return self.hidden_states(pixels)

    def hidden_states(self, pixels: Float[Tensor, "b 3 150 150"]) -> Float[Tensor, "b 64 448"]:
        """The same with gradients."""
        maps = self.network.features(pixels.to(self.device), last=_LEVELS[-1])
        grids = [self._to_grid(maps[level]) for level in _LEVELS]
        return torch.cat(grids, dim=1).flatten(2).transpose(1, 2)

    @staticmethod
    def _to_grid(feature_map: Tensor) -> Tensor:
        if feature_map.shape[-1] > _GRID:
            return F.adaptive_avg_pool2d(feature_map, _GRID)
        return F.interpolate(feature_map, size=(_GRID, _GRID), mode="nearest")
