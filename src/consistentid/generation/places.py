"""Where everybody is in a picture of several people: a box or a mask each, and the windows they are denoised in."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from consistentid.errors import InvalidSettings
from consistentid.images import PhotoSource, load_photo

MOST_AUTOMATIC = 4  # people that are laid out without being told where
OVERLAP = 8  # neighbouring windows share at least this part of the side the model was trained at
_MASK = "mask:"  # begins a place that is no box
_MASK_SIDE = 256  # px; larger masks are reduced to it, more than any canvas has latents

Grid = tuple[int, int]  # height and width in latents


@dataclass(frozen=True, eq=False)
class Layout:
    """Everybody's window on a canvas of latents, all of one size, and whose prediction counts where.

    Attributes:
        window: height and width, in latents.
        corners: top and left of each.
        shares: of each person's prediction in every pixel of the canvas; they sum to 1, and are 0 outside the window.
    """

    window: Grid
    corners: tuple[tuple[int, int], ...]
    shares: Float[Tensor, "n h w"]


def automatic_places(people: int) -> tuple[str, ...]:
    """Side by side, from left to right.

    Raises:
        InvalidSettings: there are too many people.
    """
    if people > MOST_AUTOMATIC:
        raise InvalidSettings(f"up to {MOST_AUTOMATIC} people are placed automatically; give {people} places")
    return tuple(f"{k / people:.6g},0,{(k + 1) / people:.6g},1" for k in range(people))


def automatic_size(people: int, size: tuple[int, int], *, multiple: int) -> tuple[int, int]:
    """Width and height of a canvas on which so many people stand side by side, each as if in a picture of that size."""
    width, height = size
    return people * width - (people - 1) * (width // OVERLAP // multiple * multiple), height


def mask_place(mask: PhotoSource) -> str:
    """A place from a picture that is white where the person is; a text that holds all of it, so that records do.

    Raises:
        UnreadableImage: the picture cannot be read.
    """
    picture = load_photo(mask).convert("L")
    picture.thumbnail((_MASK_SIDE, _MASK_SIDE), Image.Resampling.BOX)
    white = np.asarray(picture) >= 128
    packed = b64encode(zlib.compress(np.packbits(white).tobytes(), 9)).decode()
    return f"{_MASK}{white.shape[1]}x{white.shape[0]}:{packed}"


def with_masks(places: Iterable[str], folder: Path = Path()) -> tuple[str, ...]:
    """The places, with masks instead of the names of their files; for front doors, the library itself reads no names.

    Args:
        places: boxes, masks and files.
        folder: where relative names are looked up.

    Raises:
        UnreadableImage: a mask cannot be read.
    """
    return tuple(
        place if as_box(place) or place.startswith(_MASK) else mask_place(folder / Path(place).expanduser())
        for place in places
    )


def complete_places(places: Sequence[str], *, people: int) -> tuple[str, ...]:
    """The places, or the automatic ones when none are given.

    Args:
        places: of `GenerationSettings`.
        people: in the picture.

    Raises:
        InvalidSettings: there are more places than people, or fewer; a place is neither a mask nor a box inside the
            canvas.
    """
    if places and len(places) != people:
        raise InvalidSettings(f"places given: {len(places)}, people: {people}; give one for each")
    for place in places:
        left, top, right, bottom = as_box(place) or (0, 0, 0, 0)
        if not place.startswith(_MASK) and not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise InvalidSettings(
                f"place {place} is no box inside the canvas: left, top, right and bottom are shares of it, from 0 to 1"
            )
    return tuple(places) or automatic_places(people)


def layout_of(places: Sequence[str], *, grid: Grid, native: Grid, smallest: int, pixels: int) -> Layout:
    """Windows for complete places.

    A pixel that is in nobody's place counts as the nearest one's. Every window holds what counts as its person's, and
    is at least as large as the pictures the model was trained on, where the canvas is.

    Args:
        places: from `complete_places`.
        grid: the canvas.
        native: size of the pictures the model was trained on, in latents.
        smallest: height and width that a place needs, in latents.
        pixels: of the picture, along a side of a latent.

    Raises:
        InvalidSettings: places overlap, or one is too small.
    """
    masks = [_mask_of(place, grid) for place in places]
    _check(masks, smallest, pixels=pixels)
    spans = [_bounds(mask) for mask in masks]
    cells = _cells(masks)
    areas = [_bounds(cell) for cell in cells]
    border = max(1, min(native) // OVERLAP // 2)
    window = tuple(
        min(whole, max(side, *(area[axis][1] - area[axis][0] + border for area in areas)))
        for axis, (whole, side) in enumerate(zip(grid, native, strict=True))
    )
    corners = tuple(
        tuple(_start(span[axis], area[axis], side=window[axis], whole=grid[axis]) for axis in (0, 1))
        for span, area in zip(spans, areas, strict=True)
    )
    shares = _shares(cells, corners, window, blur=border)  # type: ignore[arg-type]
    return Layout(window, corners, shares)  # type: ignore[arg-type]


def as_box(place: str) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a place; None when it is none."""
    with suppress(ValueError):
        left, top, right, bottom = (float(value) for value in place.split(","))
        return left, top, right, bottom
    return None


def _mask_of(place: str, grid: Grid) -> Bool[np.ndarray, "h w"]:
    """The pixels of a place; those of a box have their middle in it."""
    box = as_box(place)
    if box is not None:
        left, top, right, bottom = box
        rows, columns = ((np.arange(side) + 0.5) / side for side in grid)
        inside: Bool[np.ndarray, "h w"] = ((rows >= top) & (rows < bottom))[:, None] & (
            (columns >= left) & (columns < right)
        )
        return inside
    try:
        size, _, packed = place.removeprefix(_MASK).partition(":")
        width, height = (int(side) for side in size.split("x"))
        if not 0 < min(width, height) <= max(width, height) <= _MASK_SIDE:
            raise ValueError(size)
        bits = zlib.decompressobj().decompress(b64decode(packed, validate=True), 1 + width * height // 8)
        white = np.unpackbits(np.frombuffer(bits, np.uint8))[: width * height].reshape(height, width)
    except (ValueError, zlib.error):
        raise InvalidSettings("a place is a damaged mask; make it anew from its picture") from None
    fitted = Image.fromarray(white * np.uint8(255)).resize(grid[::-1], Image.Resampling.BOX)
    return np.asarray(fitted) >= 128


def _check(masks: Sequence[Bool[np.ndarray, "h w"]], smallest: int, *, pixels: int) -> None:
    for k, mask in enumerate(masks):
        height, width = (int(mask.any(axis).sum()) for axis in (1, 0))
        if min(height, width) < smallest:
            raise InvalidSettings(
                f"place {k + 1} is {width * pixels} x {height * pixels} px, the model needs {smallest * pixels} px "
                "each way; choose a larger size, or fewer people"
            )
        for other in range(k):
            if (mask & masks[other]).any():
                raise InvalidSettings(f"places {other + 1} and {k + 1} overlap; move one of them")


def _bounds(mask: Bool[np.ndarray, "h w"]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row, and column, the last one not included."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


def _cells(masks: Sequence[Bool[np.ndarray, "h w"]]) -> list[Bool[np.ndarray, "h w"]]:
    """What counts as each person's: the pixels nearest to the place."""
    import cv2

    away = np.stack(
        [cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for mask in masks]
    )
    nearest = away.argmin(0)
    return [nearest == k for k in range(len(masks))]


def _start(span: tuple[int, int], area: tuple[int, int], *, side: int, whole: int) -> int:
    """Where a window begins: the place in its middle, as far as the canvas and the area it must hold allow."""
    middle = (sum(span) - side) // 2
    return min(max(middle, area[1] - side, 0), area[0], whole - side)


def _shares(
    cells: Sequence[Bool[np.ndarray, "h w"]], corners: Sequence[tuple[int, int]], window: Grid, *, blur: int
) -> Float[Tensor, "n h w"]:
    """Cells with soft borders, inside their windows."""
    import cv2

    soft = []
    for cell, (top, left) in zip(cells, corners, strict=True):
        blurred = cv2.blur(cell.astype(np.float32), (2 * blur + 1,) * 2, borderType=cv2.BORDER_REPLICATE)
        inside = np.zeros_like(blurred)
        inside[top : top + window[0], left : left + window[1]] = 1
        soft.append(blurred.clip(0) * inside)
    together = torch.from_numpy(np.stack(soft))
    return together / together.sum(0)
