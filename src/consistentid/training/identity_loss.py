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

_FACTOR = 8  # pixels per latent
_FACE_SIDE = 13  # latents; aligned faces of the embedded model's portraits are 92 pixels wide
TEMPERATURE = 0.05  # squared distances are 0.2 for one person and 0.7 for two


@dataclass(frozen=True)
class IdentityCritic:
    """The recogniser's opinion of decoded latents.

    Random shifts, zoom and brightness of the aligned face keep the generator from pleasing the recogniser with
    patterns that only work at one place.
    """

    autoencoder: AutoencoderTiny | AutoencoderKL
    recogniser: DlibFaceResNet

    def embed(
        self, latents: Float[Tensor, "b c h w"], landmarks: Float[Tensor, "b 5 2"], generator: torch.Generator
    ) -> Float[Tensor, "b 128"]:
        """Identity embeddings; the latents' image must show the face where the landmarks say."""
        latents, landmarks = around_the_face(latents, landmarks)
        decoded = self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample
        chips = aligned_chips(decoded.float() / 2 + 0.5, landmarks, generator)
        light = 1 + 0.1 * torch.randn(len(chips), 1, 1, 1, generator=generator)
        embeddings: Tensor = self.recogniser((chips * light).clamp(0, 1))
        return embeddings.float()


def around_the_face(
    latents: Float[Tensor, "b c h w"], landmarks: Float[Tensor, "b 5 2"]
) -> tuple[Float[Tensor, "b c s s"], Float[Tensor, "b 5 2"]]:
    """The square of the latents that an aligned face is cut from, and the landmarks in it: a third less to decode."""
    height, width = latents.shape[2:]
    side = min(_FACE_SIDE, height, width)
    middle = np.stack([alignment(points, 2).sum(1) for points in landmarks.numpy()])  # of the aligned face, (1, 1)
    corners = np.clip(np.round(middle / _FACTOR - side / 2), 0, (width - side, height - side)).astype(int)
    cut = [one[:, y : y + side, x : x + side] for one, (x, y) in zip(latents, corners, strict=True)]
    return torch.stack(cut), landmarks - torch.from_numpy(corners * float(_FACTOR))[:, None].to(landmarks)


def identity_loss(
    embeddings: Float[Tensor, "b d"], targets: Float[Tensor, "b d"], others: Float[Tensor, "n d"]
) -> Float[Tensor, ""]:
    """Cross-entropy of choosing the own target among all, by squared distance.

    Comparing matters: the mean distance to the own target also falls when every face, whoever it is of, is drawn
    nearer to the average person, and that is what a U-Net learns first.
    """
    candidates = torch.cat([targets, others])
    distances = torch.cdist(embeddings, candidates).square()
    return F.cross_entropy(-distances / TEMPERATURE, torch.arange(len(embeddings), device=embeddings.device))


def aligned_chips(
    images: Float[Tensor, "b c s s"], landmarks: Float[Tensor, "b 5 2"], generator: torch.Generator
) -> Float[Tensor, "b c 150 150"]:
    """Differentiable `faces.crops.align_face` with a little random shift and zoom."""
    size = images.shape[-1]
    matrices = np.stack([alignment(points, 2) for points in landmarks.numpy()])  # aligned coordinates 0..2
    theta = torch.from_numpy(matrices).float() * (2 / size)
    theta[:, :, 2] += theta[:, :, :2].sum(-1) - 1  # from -1..1 on both sides
    zoom = 1 + 0.04 * torch.randn(len(images), 1, 1, generator=generator)
    theta[:, :, :2] *= zoom
    theta[:, :, 2] += 0.015 * torch.randn(len(images), 2, generator=generator)
    grid = F.affine_grid(theta, [*images.shape[:2], CHIP_SIZE, CHIP_SIZE], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
