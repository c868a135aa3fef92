"""Squares around the faces of records, and where the landmarks lie in them."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from consistentid.dataset.selection import Selection
from consistentid.faces.crops import Square, crop_square
from consistentid.training.embedded.store import SIZE


def square_crops(records: Selection, scale: float, size: int, *, labels: bool = False) -> UInt8[Tensor, "n s s *c"]:
    """Squares of `scale` times the face's box, of the photos or of their label maps."""
    crops = []
    for record in records:
        square = Square.around(record.box, scale=scale)
        image = Image.fromarray(record.open_label_map()) if labels else record.open_photo()
        crops.append(np.asarray(crop_square(image, square, size, nearest=labels)))
    return torch.from_numpy(np.stack(crops))


def crop_landmarks(records: Selection, scale: float, size: int) -> Float[Tensor, "n 5 2"]:
    """Landmarks in the pixels of `square_crops`."""
    boxes, landmarks = records.column("box"), records.column("landmarks")
    pairs = zip(boxes, landmarks, strict=True)
    found = [Square.around(tuple(box), scale=scale).points(np.asarray(points), size) for box, points in pairs]
    return torch.from_numpy(np.stack(found))


def target_landmarks(records: Selection) -> Float[Tensor, "5 2"]:
    """Where the faces of targets lie: the mean, in pixels; targets are shifted by less than one."""
    found = [np.asarray(points) for points in records.column("landmarks")]
    return torch.from_numpy(np.mean([Square.on_face(points).points(points, SIZE) for points in found], axis=0)).float()
