"""Attributes measured from a photo and its label map: what captions say and what adherence to a prompt is judged by."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

_SKIN, _NOSE, _INNER_MOUTH, _UPPER_LIP, _LOWER_LIP, _HAIR = 1, 10, 11, 12, 13, 17
_EYES, _BACKGROUND = (4, 5), 0

# Reference colours in CIE Lab (L 0..100); a measured colour takes the name of the nearest one.
BACKGROUND_COLOURS = {
    "white": (92, 0, 0), "grey": (62, 0, -2), "black": (10, 0, 0), "blue": (45, 2, -32), "light blue": (70, -2, -14),
    "red": (40, 52, 32), "green": (48, -32, 26), "yellow": (80, 2, 58), "brown": (38, 12, 22), "beige": (76, 4, 16),
    "purple": (38, 36, -34), "pink": (72, 32, 2), "orange": (64, 36, 54),
}  # fmt: skip
HAIR_COLOURS = {
    "black": (10, 0, 0), "brown": (26, 6, 8), "blond": (54, 6, 21), "red": (36, 20, 24), "grey": (48, 0, 0),
    "white": (78, 0, 2),
}  # fmt: skip


@dataclass(frozen=True)
class FaceAttributes:
    """Words and the numbers behind them.

    Attributes:
        hair: a name of `HAIR_COLOURS`, "bald" when hardly any hair is visible, None when unsure.
        hair_lab: (3,) median colour of the hair, NaN without hair.
        smile: about -3 (serious) to 3 (broad smile); 0 is undecided.
        expression: "smiling", "serious", or None between the two.
        mouth_open: height of the inner mouth / distance of the eyes.
        background: a name of `BACKGROUND_COLOURS` when the background is plain enough, else None.
        background_lab: (3,) median colour of the background, NaN when none is visible.
    """

    hair: str | None
    hair_lab: Float[np.ndarray, "3"]
    smile: float
    expression: str | None
    mouth_open: float
    background: str | None
    background_lab: Float[np.ndarray, "3"]


def measure_attributes(photo: UInt8[np.ndarray, "h w 3"], label_map: UInt8[np.ndarray, "h w"]) -> FaceAttributes:
    """Measure a portrait; photo and label map have one size and show one face."""
    lab = to_lab(photo)
    hair, hair_lab = _hair(lab, label_map)
    smile, mouth_open = _mouth(label_map)
    expression = "smiling" if smile > 0.5 else "serious" if smile < -0.5 else None
    background, background_lab = _background(lab, label_map)
    return FaceAttributes(hair, hair_lab, smile, expression, mouth_open, background, background_lab)


def to_lab(photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """sRGB bytes -> CIE Lab (D65), L in 0..100."""
    rgb = photo.astype(np.float32) / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883], np.float32)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)


def colour_name(lab: Float[np.ndarray, "3"], names: dict[str, tuple[int, int, int]]) -> str:
    """The nearest named colour; lightness counts half, because light changes it most."""
    weights = np.array([0.5, 1, 1])
    return min(names, key=lambda name: float(np.linalg.norm((lab - np.array(names[name])) * weights)))


def eye_distance(label_map: UInt8[np.ndarray, "h w"]) -> float:
    """Distance of the eyes' centres in pixels, estimated from the skin's width when an eye is hidden."""
    centres = [np.argwhere(label_map == label).mean(0) for label in _EYES if (label_map == label).any()]
    if len(centres) == 2:
        return max(1.0, float(np.linalg.norm(centres[0] - centres[1])))
    columns = np.nonzero((label_map == _SKIN).any(0))[0]
    columns = np.nonzero((label_map == _SKIN).any(0))[0]
    width = float(columns.max() - columns.min()) if columns.size else label_map.shape[1] / 3
    return max(1.0, 0.45 * width)


def _shrink(mask: Bool[np.ndarray, "h w"], pixels: int) -> Bool[np.ndarray, "h w"]:
    for _ in range(pixels):
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        mask = inner
    return mask


def _hair(lab: np.ndarray, label_map: np.ndarray) -> tuple[str | None, np.ndarray]:
    distance = eye_distance(label_map)
    mask = label_map == _HAIR
    area = mask.sum() / distance**2
    inner = _shrink(mask, max(1, round(distance / 25)))
    if area < 0.35:
        return "bald", np.full(3, np.nan, np.float32)
    if inner.sum() < 20:
        return None, np.full(3, np.nan, np.float32)
    colour = np.median(lab[inner], axis=0)
    return colour_name(colour, HAIR_COLOURS), colour


def _mouth(label_map: np.ndarray) -> tuple[float, float]:
    """Smile score and opening, from the lips' width, the corners' lift and the visible inner mouth."""
    distance = eye_distance(label_map)
    lips = np.isin(label_map, (_INNER_MOUTH, _UPPER_LIP, _LOWER_LIP))
    if lips.sum() < 8:
        return 0.0, 0.0
    rows, columns = np.nonzero(lips)
    width = (columns.max() - columns.min() + 1) / distance
    inner = label_map == _INNER_MOUTH
    opening = float(inner.sum() / (columns.max() - columns.min() + 1) / distance)
    left, right = columns.min() + 0.08 * np.ptp(columns), columns.max() - 0.08 * np.ptp(columns)
    corners = np.r_[rows[columns <= left], rows[columns >= right]].mean()
    middle = rows[np.abs(columns - (columns.min() + columns.max()) / 2) < 0.1 * np.ptp(columns) + 1].mean()
    lift = float((middle - corners) / distance)
    return _smile_score(width, lift, opening), opening


def _smile_score(width: float, lift: float, opening: float) -> float:
    """Linear score, fitted on portraits whose source states the expression (see the model card)."""
    return float(np.clip(12 * (width - 0.86) + 14 * (lift - 0.04) + 12 * min(opening, 0.12), -3, 3))


def _background(lab: np.ndarray, label_map: np.ndarray) -> tuple[str | None, np.ndarray]:
    mask = label_map == _BACKGROUND
    if mask.mean() < 0.03:
        return None, np.full(3, np.nan, np.float32)
    inner = _shrink(mask, 2)
    pixels = lab[inner if inner.any() else mask]
    colour = np.median(pixels, axis=0)
    spread = np.abs(pixels - colour).mean(0)
    plain = float(spread @ np.array([0.5, 1, 1])) < 14
    return (colour_name(colour, BACKGROUND_COLOURS) if plain else None), colour
