"""Square crops around a face: one framing for the dataset, the image encoder and the evaluation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

PORTRAIT_SCALE = 1.7  # side of a portrait crop / side of the face box: the head, some background
_RISE = 0.04  # the centre of the crop lies above that of the box by this share of the side, for the hair


@dataclass(frozen=True)
class Square:
    """A square of the photo, in pixels; it may reach past the border."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, box: tuple[float, float, float, float], *, scale: float = PORTRAIT_SCALE) -> "Square":
        """The portrait crop of a face box (left, top, right, bottom)."""
        side = scale * max(box[2] - box[0], box[3] - box[1])
        centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - _RISE * side
        return cls(centre_x - side / 2, centre_y - side / 2, side)

    def scaled(self, factor: float, *, shift: tuple[float, float] = (0.0, 0.0)) -> "Square":
        """The square zoomed about its centre, which moves by shift (shares of the side)."""
        side = self.side * factor
        centre_x = self.left + self.side * (0.5 + shift[0])
        centre_y = self.top + self.side * (0.5 + shift[1])
        return Square(centre_x - side / 2, centre_y - side / 2, side)

    def points(self, points: Float[np.ndarray, "n 2"], size: int) -> Float[np.ndarray, "n 2"]:
        """Photo coordinates -> coordinates of the crop resized to size x size."""
        return ((points - np.array([self.left, self.top])) * (size / self.side)).astype(np.float32)


def crop_square(image: Image.Image, square: Square, size: int, *, nearest: bool = False) -> Image.Image:
    """The square, resized to size x size; past the border the outermost pixels are repeated."""
    left, top, side = round(square.left), round(square.top), max(1, round(square.side))
    right, bottom = left + side, top + side
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    pixels = np.asarray(image.crop(inside))
    border = ((inside[1] - top, bottom - inside[3]), (inside[0] - left, right - inside[2]))
    if any(max(pair) > 0 for pair in border):
        pixels = np.pad(pixels, border + ((0, 0),) * (pixels.ndim - 2), mode="edge")
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize((size, size), filter_)
