"""Faces and their regions cut out of batches of images with gradients, as dlib's recogniser wants them."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from consistentid.faces.crops import alignment
from consistentid.faces.dlib_resnet import CHIP_SIZE
from consistentid.faces.region_frame import FRAME_ZOOM, MARGIN

_ZOOM, _SHIFT = 0.04, 0.015  # standard deviations
_BAND = 1.2  # what is visible of a region's surroundings, of its box


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
    return _sampled(images, _jittered(_frame(landmarks, images, zoom=1.0), jitter))


def region_chips(
    images: Float[Tensor, "b c s s"],
    landmarks: Float[Tensor, "b 5 2"],
    boxes: Float[Tensor, "b 4"],
    jitter: Float[Tensor, "b 3"],
) -> Float[Tensor, "b c 150 150"]:
    """One region of each face, cut out as `fgis.region_crops` does, but black outside its box, not outside its mask.

    The mask would say how the region is shaped; of a predicted picture there is none.

    Args:
        images: square.
        landmarks: in their pixels.
        boxes: see `region_box`.
        jitter: as for `aligned_chips`.
    """
    middle, extent = boxes[:, :2, None], boxes[:, 2:]
    side = extent.amax(1)[:, None, None]
    frame = _frame(landmarks, images, zoom=FRAME_ZOOM)
    with _exactly(images):
        theta = torch.cat([frame[:, :, :2] * side, frame[:, :, :2] @ middle + frame[:, :, 2:]], 2)
    along = torch.linspace(-1, 1, CHIP_SIZE, device=images.device).abs()
    visible = along <= (_BAND * extent / side[:, 0])[..., None]  # across and down
    return _sampled(images, _jittered(theta, jitter)) * (visible[:, 1, :, None] & visible[:, 0, None])[:, None]


def upright(
    images: Float[Tensor, "b c s s"], landmarks: Float[Tensor, "b 5 2"], size: int, *, zoom: float
) -> Float[Tensor, "b c size size"]:
    """Faces as `crops.align_face` turns them, in images of another size."""
    return _sampled(images, _frame(landmarks, images, zoom=zoom), size=size)


def zoomed(maps: Float[Tensor, "b c s s"], size: int, *, by: float) -> Float[Tensor, "b c size size"]:
    """The middle of upright faces, as a frame with that many times the zoom shows it."""
    theta = torch.eye(2, 3, device=maps.device) / by
    return _sampled(maps, theta.expand(len(maps), -1, -1), size=size, padding="border")


def cut_out(
    views: Float[Tensor, "b c s s"], squares: Float[Tensor, "b 3"], jitter: Float[Tensor, "b 3"]
) -> Float[Tensor, "b c 150 150"]:
    """A square of each view, given by its middle (across, down) and half its side, where the view goes from -1 to 1."""
    turned = torch.eye(2, device=views.device) * squares[:, 2, None, None]
    return _sampled(views, _jittered(torch.cat([turned, squares[:, :2, None]], 2), jitter))


def region_box(mask: Bool[np.ndarray, "p p"]) -> Float[np.ndarray, " 4"]:
    """Middle (across, down) and extents of the box of a region in the frame of FGIS, which goes from -1 to 1."""
    rows, columns = np.nonzero(mask)
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
    return np.concatenate([(low + high) / len(mask) - 1, MARGIN * (high - low) / len(mask)])


def _frame(
    landmarks: Float[Tensor, "b 5 2"], images: Float[Tensor, "b c s s"], *, zoom: float
) -> Float[Tensor, "b 2 3"]:
    """Places in the upright face -> places in the images, both -1..1."""
    matrices = np.stack([alignment(points, 2, zoom=zoom) for points in landmarks.cpu().numpy()])
    theta = torch.from_numpy(matrices).float().to(images.device) * (2 / images.shape[-1])  # aligned coordinates 0..2
    theta[:, :, 2] += theta[:, :, :2].sum(-1) - 1
    return theta


def _exactly(images: Tensor) -> torch.autocast:
    """In half precision, what is looked at would be off by up to half a pixel."""
    return torch.autocast(images.device.type, enabled=False)


def _jittered(theta: Float[Tensor, "b 2 3"], jitter: Float[Tensor, "b 3"]) -> Float[Tensor, "b 2 3"]:
    scaled = theta[:, :, :2] * (1 + _ZOOM * jitter[:, :1, None])
    return torch.cat([scaled, theta[:, :, 2:] + _SHIFT * jitter[:, 1:, None]], dim=2)


def _sampled(
    images: Float[Tensor, "b c h w"], theta: Float[Tensor, "b 2 3"], *, size: int = CHIP_SIZE, padding: str = "zeros"
) -> Float[Tensor, "b c size size"]:
    with _exactly(images):
        grid = F.affine_grid(theta, [*images.shape[:2], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
