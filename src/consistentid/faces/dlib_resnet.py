"""dlib's face recognition network as a torch module, read from its own weight file.

dlib runs the network one face at a time, without gradients and without hidden states. The same weights in torch
give batches, feature maps (an image encoder for regions) and gradients (an identity loss).
Source of the layout: dlib's `anet_type` (dnn_face_recognition_ex.cpp); the weights are CC0.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

CHIP_SIZE = 150
_LAYER = re.compile(rb"con_4|affine_|fc_2")
_MEAN = (122.782, 117.001, 104.298)  # dlib's input_rgb_image_sized, per channel, of 0..255
_STAGES = (  # output channels, whether the first block halves the resolution
    (32, False), (32, False), (32, False),
    (64, True), (64, False), (64, False), (64, False),
    (128, True), (128, False), (128, False),
    (256, True), (256, False), (256, False),
    (256, True),
)  # fmt: skip


class _ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, halve: bool) -> None:
        super().__init__()
        stride, padding = (2, 0) if halve else (1, 1)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x).relu())
        shortcut = nn.functional.avg_pool2d(x, 2, 2) if self.halve else x
        # dlib's add_prev pads the smaller of the two with zeros, in space and in channels.
        height, width = max(y.shape[2], shortcut.shape[2]), max(y.shape[3], shortcut.shape[3])
        return (_pad(y, y.shape[1], height, width) + _pad(shortcut, y.shape[1], height, width)).relu()


def _pad(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    missing = (channels - x.shape[1], height - x.shape[2], width - x.shape[3])
    if not any(missing):
        return x
    return nn.functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))


class DlibFaceResNet(nn.Module):
    """The 29-layer recogniser: face chips (b, 3, 150, 150) -> embeddings (b, 128).

    dlib's affine layers are folded into the convolutions before them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        channels_in = (32, *(channels for channels, _ in _STAGES[:-1]))
        blocks = [
            _ResidualBlock(before, channels, halve)
            for before, (channels, halve) in zip(channels_in, _STAGES, strict=True)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(256, 128, bias=False)

    def features(self, chips: Tensor, *, last: int = len(_STAGES) - 1) -> list[Tensor]:
        """Feature maps after every block up to `last`, for images (b, 3, h, w) of 0..1."""
        mean = chips.new_tensor(_MEAN).view(1, 3, 1, 1)
        x = self.stem((chips * 255 - mean) / 256).relu()
        x = nn.functional.max_pool2d(x, 3, 2)
        maps = []
        for block in self.blocks[: last + 1]:
            x = block(x)
            maps.append(x)
        return maps

    def forward(self, chips: Tensor) -> Tensor:
        """Embeddings (b, 128) of chips (b, 3, 150, 150) of 0..1; not normalised, as in dlib."""
        return self.head(self.features(chips)[-1].mean(dim=(2, 3)))

    @classmethod
    def from_dat(cls, path: Path) -> "DlibFaceResNet":
        """Read `dlib_face_recognition_resnet_model_v1.dat`."""
        network = cls()
        layers = _layers(path.read_bytes())
        with torch.no_grad():
            for convolution in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
                weight, bias = _convolution(next(layers), convolution.weight.shape)
                gamma, beta = torch.from_numpy(next(layers)).chunk(2)
                convolution.weight.copy_(weight * gamma.view(-1, 1, 1, 1))
                convolution.bias = nn.Parameter(bias * gamma + beta)
            network.head.weight.copy_(torch.from_numpy(next(layers)).view(256, 128).T)
        return network.eval().requires_grad_(False)


def _convolution(values: np.ndarray, shape: torch.Size) -> tuple[Tensor, Tensor]:
    flat = torch.from_numpy(values)
    return flat[: -shape[0]].view(shape), flat[-shape[0] :]


def _layers(data: bytes) -> Iterator[np.ndarray]:
    """Parameters of the convolution, affine and fully connected layers, from input to output."""
    position = 0
    while True:
        found = _LAYER.search(data, position)
        if found is None:
            raise ValueError(f"no dlib layer after byte {position}")
        position = found.end()
        if found.group() == b"fc_2":  # number of outputs and inputs come first
            _, position = _integer(data, position)
            _, position = _integer(data, position)
        version, position = _integer(data, position)
        if version != 2:
            raise ValueError(f"dlib tensor version {version} at byte {position}; 2 is expected")
        count = 1
        for _ in range(4):
            extent, position = _integer(data, position)
            count *= extent
        yield np.frombuffer(data, "<f4", count, position).copy()
        position += 4 * count


def _integer(data: bytes, position: int) -> tuple[int, int]:
    """dlib's packed integer: a byte with the sign and the length, then little-endian bytes."""
    length = data[position] & 0x0F
    return int.from_bytes(data[position + 1 : position + 1 + length], "little"), position + 1 + length
