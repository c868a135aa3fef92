"""Changes of a portrait that keep the person: what the text must decide is made independent of who is shown."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from consistentid.faces.attributes import BACKGROUND_COLOURS, HAIR_COLOURS, to_lab
from consistentid.faces.crops import alignment
from consistentid.faces.regions import mirror_labels

_HAIR, _BACKGROUND = 17, 0
_MOUTH_CENTRE, _MOUTH_RADII = (0.493, 0.715), (0.21, 0.115)  # of an aligned face, shares of its side


@dataclass(frozen=True)
class Portrait:
    """A square portrait with its label map, both (s, s)."""

    photo: UInt8[np.ndarray, "s s 3"]
    label_map: UInt8[np.ndarray, "s s"]

    def mirrored(self) -> "Portrait":
        """Left and right exchanged, also in the labels of pairs."""
        return Portrait(self.photo[:, ::-1].copy(), mirror_labels(self.label_map))


def recolour_hair(portrait: Portrait, colour: str, rng: np.random.Generator) -> Portrait:
    """Hair of a named colour; its light and shade stay."""
    weight = soft(portrait.label_map == _HAIR, 1.2)
    lab = to_lab(portrait.photo)
    inside = weight > 0.5
    if inside.sum() < 30:
        return portrait
    target = np.array(HAIR_COLOURS[colour], np.float32) + rng.normal(0, (3, 1.5, 2.5)).astype(np.float32)
    middle = np.median(lab[inside], axis=0)
    contrast = np.clip((target[0] + 18) / (middle[0] + 18), 0.5, 1.8)
    shifted = (lab - middle) * np.array([contrast, 0.5, 0.5], np.float32) + target
    return Portrait(blend(portrait.photo, _to_rgb(shifted), weight), portrait.label_map)


def replace_background(portrait: Portrait, colour: str, rng: np.random.Generator) -> Portrait:
    """A plain background of a named colour with a soft gradient."""
    size = portrait.photo.shape[0]
    weight = soft(portrait.label_map == _BACKGROUND, 1.0)
    target = np.array(BACKGROUND_COLOURS[colour], np.float32) + rng.normal(0, (4, 2.5, 2.5)).astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    slope = rng.normal(0, 7, 2)
    lightness = slope[0] * x + slope[1] * y + rng.normal(0, 8) * (0.2 - (x**2 + y**2))
    plane = np.broadcast_to(target, (size, size, 3)).copy()
    plane[..., 0] += lightness
    return Portrait(blend(portrait.photo, _to_rgb(plane), weight), portrait.label_map)


def jitter_colour(photo: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Another camera and light: exposure, contrast and a colour cast."""
    values = photo.astype(np.float32) / 255
    gain = rng.normal(1, 0.06, 3) * rng.uniform(0.85, 1.15)
    values = np.clip(values * gain, 0, 1) ** rng.uniform(0.85, 1.18)
    return (values * 255).astype(np.uint8)


def paste_mouth(
    photo: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "5 2"], donor: UInt8[np.ndarray, "s s 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The photo with the mouth of another aligned face, matched in colour at the seam."""
    size = donor.shape[0]
    y, x = np.mgrid[0:size, 0:size] / size
    radius = np.hypot((x - _MOUTH_CENTRE[0]) / _MOUTH_RADII[0], (y - _MOUTH_CENTRE[1]) / _MOUTH_RADII[1])
    matrix = alignment(landmarks, size)
    flags = cv2.INTER_LINEAR
    target = (photo.shape[1], photo.shape[0])
    weight = cv2.warpAffine(np.clip((1.15 - radius) / 0.3, 0, 1).astype(np.float32), matrix, target, flags=flags)
    ring = cv2.warpAffine(((radius > 0.85) & (radius < 1.15)).astype(np.float32), matrix, target, flags=flags) > 0.5
    warped = cv2.warpAffine(donor, matrix, target, flags=flags).astype(np.float32)
    moved = warped + (photo[ring].mean(0) - warped[ring].mean(0) if ring.any() else 0)
    return blend(photo, np.clip(moved, 0, 255).astype(np.uint8), weight)


def soft(mask: np.ndarray, sigma: float) -> Float[np.ndarray, "s s"]:
    """A mask blurred by so many pixels of a picture of 128."""
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma * mask.shape[0] / 128)


def blend(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Pictures (h, w, 3) mixed by the weight (h, w) of the one above, as uint8."""
    mixed = below.astype(np.float32) * (1 - weight[..., None]) + above.astype(np.float32) * weight[..., None]
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def _to_rgb(lab: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    rgb = cv2.cvtColor(np.clip(lab, (0, -127, -127), (100, 127, 127)).astype(np.float32), cv2.COLOR_LAB2RGB)
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
