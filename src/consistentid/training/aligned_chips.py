"""Differentiable `faces.crops.align_face`, for losses that ask the recogniser."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from consistentid.faces.crops import alignment
from consistentid.faces.dlib_resnet import CHIP_SIZE


def aligned_chips(
    images: Float[Tensor, "b c s s"], landmarks: Float[Tensor, "b 5 2"], generator: torch.Generator
) -> Float[Tensor, "b c 150 150"]:
    """Faces cut out as the recogniser wants them, with a little random shift and zoom.

    Otherwise patterns would be learnt that please it at one place only.
    """
    size = images.shape[-1]
    matrices = np.stack([alignment(points, 2) for points in landmarks.numpy()])  # aligned coordinates 0..2
    theta = torch.from_numpy(matrices).float() * (2 / size)
    theta[:, :, 2] += theta[:, :, :2].sum(-1) - 1  # from -1..1 on both sides
    zoom = 1 + 0.04 * torch.randn(len(images), 1, 1, generator=generator)
    theta[:, :, :2] *= zoom
    theta[:, :, 2] += 0.015 * torch.randn(len(images), 2, generator=generator)
    grid = F.affine_grid(theta, [*images.shape[:2], CHIP_SIZE, CHIP_SIZE], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
