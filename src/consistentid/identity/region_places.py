"""Where regions lie in a picture, and whose identity tokens draw what: those of a region's giver in its place.

Identity tokens know the whole face. A region's token alone changes little beside them, so who gives a region also gives
the identity tokens that are read in its place, as diffusers' masks for IP-Adapters do it for several people.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from consistentid.faces.regions import region_masks

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the picture
Places = Mapping[str, tuple[Box, ...]]

_FACE = "face"
_SPECK = 0.1  # of a region's largest part; smaller ones are specks


def place_masks(places: Places, regions: Sequence[str], size: tuple[int, int]) -> Float[Tensor, "r h w"]:
    """Soft masks of the places of some regions; that of the face leaves the other regions out.

    Args:
        places: of all regions.
        regions: the wanted ones; those without a place get an empty mask.
        size: height and width.
    """
    every = {name: _covered(boxes, size) for name, boxes in places.items()}
    others = sum((mask for name, mask in every.items() if name != _FACE), torch.zeros(size))
    if _FACE in every:
        every[_FACE] = every[_FACE] * (1 - others.clamp(max=1))
    return torch.stack([every.get(name, torch.zeros(size)) for name in regions])


def places_of(label_map: UInt8[np.ndarray, "h w"]) -> dict[str, tuple[Box, ...]]:
    """Where the regions of a picture lie: a box around each part of a region, such as either eye."""
    import cv2

    height, width = label_map.shape
    places = {}
    for name, mask in region_masks(label_map).items():
        *_, parts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        parts = parts[1:]  # without the background
        large = parts[parts[:, cv2.CC_STAT_AREA] >= _SPECK * parts[:, cv2.CC_STAT_AREA].max()]
        places[name] = tuple(
            (left / width, top / height, (left + across) / width, (top + down) / height)
            for left, top, across, down, _ in large.tolist()
        )
    return places


def shares_of_givers(masks: Float[Tensor, "r h w"], weights: Sequence[float]) -> Float[Tensor, "1+r h w"]:
    """How strongly the person's own identity tokens, and those of every region's giver, act in every pixel.

    Args:
        masks: places of the given regions.
        weights: of these regions; at 0 their place is the person's own.
    """
    masks = masks / masks.sum(0).clamp(min=1)
    factors = masks.new_tensor(weights)[:, None, None]
    return torch.cat([1 - (masks * factors.clamp(max=1)).sum(0, keepdim=True), masks * factors])


def _covered(boxes: Sequence[Box], size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """How much of every pixel the boxes cover, a little blurred."""
    mask = torch.zeros(size)
    for left, top, right, bottom in boxes:
        mask += _along(top, bottom, size[0])[:, None] * _along(left, right, size[1])
    around = F.avg_pool2d(F.pad(mask[None, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0, 0]
    return (mask.clamp(max=1) + around.clamp(max=1)) / 2


def _along(start: float, end: float, pixels: int) -> Float[Tensor, " p"]:
    edges = torch.arange(pixels + 1) / pixels
    return (edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)).clamp(min=0) * pixels
