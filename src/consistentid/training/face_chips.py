"""Faces cut out of batches of images with gradients, as dlib's recogniser wants them."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from consistentid.faces.crops import alignment
from consistentid.faces.dlib_resnet import CHIP_SIZE

_ZOOM, _SHIFT = 0.04, 0.015  # standard deviations


def aligned_chips(
    images: Float[Tensor, "b c s s"], landmarks: Float[Tensor, "b 5 2"], jitter: Float[Tensor, "b 3"]
) -> Float[Tensor, "b c 150 150"]:
    """Upright faces of one size, with a little zoom and shift.

    Without these, patterns would be learnt that please the recogniser at one place only.

    Args:
        images: square.
        landmarks: in their pixels.
        jitter: standard normal numbers: zoom, and shift to the right and downwards.
    """
    size = images.shape[-1]
    matrices = np.stack([alignment(points, 2) for points in landmarks.cpu().numpy()])  # aligned coordinates 0..2
    theta = torch.from_numpy(matrices).float().to(images.device) * (2 / size)
    theta[:, :, 2] += theta[:, :, :2].sum(-1) - 1  # from -1..1 on both sides
    theta[:, :, :2] *= 1 + _ZOOM * jitter[:, :1, None]
    theta[:, :, 2] += _SHIFT * jitter[:, 1:]
    grid = F.affine_grid(theta, [*images.shape[:2], CHIP_SIZE, CHIP_SIZE], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
