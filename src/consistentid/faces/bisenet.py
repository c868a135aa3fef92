"""BiSeNet with a ResNet-18 (arXiv:1808.00897), laid out as the public `face_parsing.pth`, and the parser around it.

Only the network's layout and numbers are those of that file; the spatial path is the ResNet's own stage of stride 8.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from consistentid.errors import WeightsNotFound
from consistentid.faces.detection import DetectedFace
from consistentid.faces.parsing import normalised
from consistentid.faces.regions import LABEL_NAMES
from consistentid.weight_files import read_weights


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Same height and width."""
        return F.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions (arXiv:1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(shortcut + residual)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """The trunk of ResNet-18, without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=2), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=2), BasicBlock(512, 512))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps of strides 8 (128 channels), 16 (256) and 32 (512)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        stride8 = self.layer2(self.layer1(x))
        stride16 = self.layer3(stride8)
        return stride8, stride16, self.layer4(stride16)


class AttentionRefinement(nn.Module):
    """Channels weighted by what the whole map holds (section 3.2 of the paper)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same height and width."""
        features = self.conv(x)
        pooled = features.mean((2, 3), keepdim=True)
        return features * torch.sigmoid(self.bn_atten(self.conv_atten(pooled)))


class ContextPath(nn.Module):
    """Wide context carried from stride 32 up to stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBNReLU(128, 128)
        self.conv_head16 = ConvBNReLU(128, 128)
        self.conv_avg = ConvBNReLU(512, 128, kernel=1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Spatial features (stride 8), context at stride 8, context at stride 16; 128 channels each."""
        stride8, stride16, stride32 = self.resnet(x)
        average = self.conv_avg(stride32.mean((2, 3), keepdim=True))
        context32 = F.interpolate(self.arm32(stride32) + average, stride16.shape[2:], mode="nearest")
        context16 = self.conv_head32(context32)
        context8 = F.interpolate(self.arm16(stride16) + context16, stride8.shape[2:], mode="nearest")
        return stride8, self.conv_head16(context8), context16


class FeatureFusion(nn.Module):
    """Spatial and context features joined (section 3.2 of the paper)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(channels, channels, kernel=1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Same height and width, the channels of both together."""
        features = self.convblk(torch.cat([spatial, context], 1))
        pooled = features.mean((2, 3), keepdim=True)
        return features * (1 + torch.sigmoid(self.conv2(F.relu(self.conv1(pooled)))))


class Head(nn.Module):
    """Features -> logits."""

    def __init__(self, in_channels: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, middle)
        self.conv_out = nn.Conv2d(middle, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the features' resolution."""
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """The whole network; the heads of strides 16 and 32 only helped its training, but their weights are in the file."""

    def __init__(self, classes: int = len(LABEL_NAMES)) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion(256)
        self.conv_out = Head(256, 256, classes)
        self.conv_out16 = Head(128, 64, classes)
        self.conv_out32 = Head(128, 64, classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Logits at the input's resolution."""
        spatial, context, _ = self.cp(x)
        return F.interpolate(
            self.conv_out(self.ffm(spatial, context)), x.shape[2:], mode="bilinear", align_corners=True
        )


class BisenetParser:
    """The parser of the released checkpoints: BiSeNet on the whole photo stretched to a square.

    Its classes have the numbers of CelebAMask-HQ. The label map keeps the square's resolution, because the released
    checkpoints were trained on masks made there.

    Args:
        path: `face_parsing.pth` (read as weights only) or the same weights as safetensors.
        size: side of the square; 512 for SD 1.5, 1280 for SDXL in the release.
    """

    name = "bisenet"

    def __init__(self, path: str | Path, *, size: int = 512, device: str = "cpu") -> None:
        self.path = Path(path).expanduser()
        self.size = size
        self.device = device

    @cached_property
    def _network(self) -> BiSeNet:
        network = BiSeNet()
        try:
            network.load_state_dict(_read_state(self.path), strict=True)
        except (RuntimeError, TypeError) as error:
            raise WeightsNotFound(f"{self.path} does not hold the weights of a BiSeNet with ResNet-18") from error
        return network.eval().to(self.device)

    def parse(
        self,
        photo: UInt8[np.ndarray, "h w 3"],
        face: DetectedFace | None = None,  # noqa: ARG002  the whole photo is parsed
    ) -> UInt8[np.ndarray, "s s"]:
        """See `FaceParser.parse`."""
        square = Image.fromarray(photo).resize((self.size, self.size), Image.Resampling.BILINEAR)
        with torch.inference_mode():
            logits = self._network(normalised(square).to(self.device))
        return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def _read_state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsNotFound(f"{path} does not exist; download face_parsing.pth of ConsistentID and give its path")
    return dict(read_weights(path))
