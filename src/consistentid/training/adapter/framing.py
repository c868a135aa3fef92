"""Which part of a photo is the target, and at what size."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from consistentid.faces.crops import Square, crop_square

Size = tuple[int, int]
_STEP = 64  # px; sides of buckets are multiples
_LONGEST = 2.0  # width / height of the widest bucket, and the inverse of the tallest's


@dataclass(frozen=True)
class Framed:
    """A target: (h, w) pixels, label map, and where they come from.

    Attributes:
        place: SDXL's micro-conditioning: height and width of the photo, top and left of the crop in the resized
            photo, height and width of the target, in pixels.
    """

    photo: UInt8[np.ndarray, "h w 3"]
    label_map: UInt8[np.ndarray, "h w"]
    place: tuple[int, int, int, int, int, int]


def buckets(resolution: int) -> list[Size]:
    """Widths and heights of about resolution x resolution pixels, from tall to wide."""
    found = set()
    for width in range(_STEP, 4 * resolution, _STEP):
        height = round(resolution**2 / width / _STEP) * _STEP
        if height and 1 / _LONGEST <= width / height <= _LONGEST and width * height <= 1.1 * resolution**2:
            found.add((width, height))
    return sorted(found or {(resolution, resolution)}, key=lambda size: size[0] / size[1])


def assign_buckets(widths: Sequence[int], heights: Sequence[int], sizes: Sequence[Size], *, least: int) -> list[int]:
    """The index of each photo's bucket: the nearest in proportions of those that get at least `least` photos.

    When none gets so many, the one that gets most.
    """
    proportions = np.log([width / height for width, height in sizes])
    wanted = np.log(np.asarray(widths) / np.asarray(heights))
    distance = np.abs(wanted[:, None] - proportions)
    counts = Counter(distance.argmin(1).tolist())
    filled = [index for index, count in sorted(counts.items()) if count >= least] or [counts.most_common(1)[0][0]]
    return [filled[index] for index in distance[:, filled].argmin(1).tolist()]


def frame_photo(
    photo: Image.Image,
    label_map: UInt8[np.ndarray, "h w"],
    size: Size,
    *,
    box: tuple[float, float, float, float],
) -> Framed:
    """As much of the photo as fits a size, with the face (left, top, right, bottom) near the middle."""
    width, height = size
    scale = max(width / photo.width, height / photo.height)
    across, down = width / scale, height / scale
    left = _placed((box[0] + box[2]) / 2, across, photo.width)
    top = _placed((box[1] + box[3]) / 2, down, photo.height)
    part = (left, top, min(left + across, photo.width), min(top + down, photo.height))
    labels = Image.fromarray(label_map)
    return Framed(
        np.asarray(photo.resize(size, Image.Resampling.LANCZOS, box=part)),
        np.asarray(labels.resize(size, Image.Resampling.NEAREST, box=part)),
        (photo.height, photo.width, round(top * scale), round(left * scale), height, width),
    )


def frame_face(
    photo: Image.Image,
    label_map: UInt8[np.ndarray, "h w"],
    size: Size,
    *,
    landmarks: Float[np.ndarray, "5 2"],
    rng: np.random.Generator,
) -> Framed:
    """The square in which eyes and nose lie where they do in every other, but for small shifts."""
    side = size[0]
    square = Square.on_face(landmarks).scaled(rng.uniform(0.97, 1.03), shift=tuple(rng.normal(0, 0.006, 2)))
    scale = side / square.side
    return Framed(
        np.asarray(crop_square(photo, square, side)),
        np.asarray(crop_square(Image.fromarray(label_map), square, side, nearest=True)),
        (photo.height, photo.width, max(0, round(square.top * scale)), max(0, round(square.left * scale)), side, side),
    )


def _placed(middle: float, length: float, whole: int) -> float:
    """Where a part of a length begins that has a middle, moved inside the whole."""
    return max(0.0, min(middle - length / 2, whole - length))
