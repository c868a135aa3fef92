"""A repainted part that fits into its picture: colours and grain as along the border of the mask."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

_RING = 0.06  # width of the compared border outside the mask, as a share of the picture's shorter side
_CONTRAST = (0.8, 1.25)  # more is no match of colours but another picture
_ENOUGH = 50  # px of the ring; fewer tell nothing
_GRAIN_SCALE = 1.0  # px; what is finer counts as grain
_MAD = 1.4826  # median absolute deviation -> standard deviation


def matched(picture: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture with the colours and the grain that its original has around the mask.

    Outside the mask both show the same, so what differs there is what the autoencoder and the denoiser changed: mean
    and contrast of each Lab channel, fitted by least squares so that lost details do not count as lost contrast, and
    fine noise, of which only missing one is added.

    Args:
        picture: after inpainting.
        original: before, of the same size.
        mask: 255 where the picture was repainted, 0 far from it.
    """
    ring = _ring(np.asarray(mask))
    if ring.sum() < _ENOUGH:
        return picture
    ours, theirs = _lab(picture), _lab(original)
    mean, wanted = ours[ring].mean(0), theirs[ring].mean(0)
    together, alone = ((ours[ring] - mean) * (values[ring] - values[ring].mean(0)) for values in (theirs, ours))
    contrast = np.clip(together.mean(0) / np.maximum(alone.mean(0), 1e-6), *_CONTRAST)
    fitted = (ours - mean) * contrast + wanted
    missing = _grain(theirs[..., 0])[ring], _grain(fitted[..., 0])[ring]
    variance = _deviation(missing[0]) ** 2 - _deviation(missing[1]) ** 2
    if variance > 0:
        noise = np.random.default_rng(0).standard_normal(ring.shape).astype(np.float32)
        fitted[..., 0] += noise * variance**0.5 / _grain_left(noise)
    return _rgb(fitted)


def _ring(mask: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    import cv2

    radius = max(2, round(_RING * min(mask.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    inside = (mask >= 128).astype(np.uint8)
    return (cv2.dilate(inside, disc) > 0) & (inside == 0)


def _grain(channel: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    import cv2

    return channel - cv2.GaussianBlur(channel, (0, 0), _GRAIN_SCALE)


def _grain_left(noise: Float[np.ndarray, "h w"]) -> float:
    """How much of white noise of deviation 1 counts as grain."""
    return _deviation(_grain(noise))


def _deviation(values: Float[np.ndarray, "..."]) -> float:
    """Robust against edges, which are few."""
    return _MAD * float(np.median(np.abs(values - np.median(values))))


def _lab(picture: Image.Image) -> Float[np.ndarray, "h w 3"]:
    import cv2

    return cv2.cvtColor(np.asarray(picture.convert("RGB"), np.float32) / 255, cv2.COLOR_RGB2LAB)


def _rgb(lab: Float[np.ndarray, "h w 3"]) -> Image.Image:
    import cv2

    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return Image.fromarray(np.clip(np.round(rgb * 255), 0, 255).astype(np.uint8))
