"""Identity loss: the recogniser looks at the predicted clean image (as in PuLID, arXiv:2404.16022)."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from consistentid.faces.crops import alignment
from consistentid.faces.dlib_resnet import CHIP_SIZE, DlibFaceResNet


@dataclass(frozen=True)
class IdentityCritic:
    """Distance of the recogniser's embedding of decoded latents to the person's own.

    Random shifts, zoom and brightness of the aligned face keep the generator from pleasing the recogniser with
    patterns that only work at one place.
    """

    autoencoder: AutoencoderTiny | AutoencoderKL
    recogniser: DlibFaceResNet

    def distances(
        self,
        latents: Float[Tensor, "b c h w"],
        landmarks: Float[Tensor, "b 5 2"],
        identity: Float[Tensor, "b 128"],
        generator: torch.Generator,
    ) -> Float[Tensor, " b"]:
        """Squared distances; the latents' image must show the face where the landmarks say."""
        decoded = self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample
        chips = aligned_chips(decoded.float() / 2 + 0.5, landmarks, generator)
        light = 1 + 0.1 * torch.randn(len(chips), 1, 1, 1, generator=generator)
        embeddings = self.recogniser((chips * light).clamp(0, 1))
        return (embeddings.float() - identity).square().sum(1)


def aligned_chips(
    images: Float[Tensor, "b 3 s s"], landmarks: Float[Tensor, "b 5 2"], generator: torch.Generator
) -> Float[Tensor, "b 3 150 150"]:
    """Differentiable `faces.crops.align_face` with a little random shift and zoom."""
    size = images.shape[-1]
    matrices = np.stack([alignment(points, 2) for points in landmarks.numpy()])  # aligned coordinates 0..2
    theta = torch.from_numpy(matrices).float() * (2 / size)
    theta[:, :, 2] += theta[:, :, :2].sum(-1) - 1  # from -1..1 on both sides
    zoom = 1 + 0.04 * torch.randn(len(images), 1, 1, generator=generator)
    theta[:, :, :2] *= zoom
    theta[:, :, 2] += 0.015 * torch.randn(len(images), 2, generator=generator)
    grid = F.affine_grid(theta, [len(images), 3, CHIP_SIZE, CHIP_SIZE], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
