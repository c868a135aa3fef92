"""An invisible mark in the pixels that says “made by consistentid”, and how surely a picture carries it.

Spread spectrum (Cox, Kilian, Leighton and Shamoon, 1997): a fixed pseudo-random sign for each of about two thousand
frequencies of the picture's brightness, which the picture is made to agree with where the eye does not see it. The
detector measures the agreement, so it needs neither the original nor the size the picture had. The signs are no secret:
the mark survives what happens to pictures by the way, not somebody who wants it gone. ADR 16 has what was measured.
"""

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image

FOUND = 6.0  # standard deviations; of a billion pictures without the mark, about one reaches it

_SIDE = 128  # px, the size that every picture is looked at
_BAND = (10.0, 50.0)  # distance from the constant coefficient; below, a change is seen, above, JPEG removes it
_KEY = 20260711
_MARGIN = 10.0  # by which a coefficient agrees clearly; JPEG of quality 50 changes it by about half of that
_ENOUGH = 10.0  # standard deviations that a marked picture is given, of which re-encoding takes some
_SMOOTH, _TEXTURE, _MOST = 0.8, 0.25, 6.0  # unseen change: grey levels; per grey level of deviation around; at most
_PLACE = (9, 9)  # px, what counts as around
_STRENGTHS = (1.0, 1.5, 2.25, 3.4)  # times the unseen change, for pictures that resist
_ROUNDS, _STEP = 24, 0.25


def marked(picture: Image.Image) -> Image.Image:
    """The picture with the mark, as strong as it must be and no stronger.

    Args:
        picture: RGB.
    """
    brightness = _brightness(picture)
    for strength in _STRENGTHS:
        change = _change(brightness, limit=strength * _unseen(brightness))
        if _agreement(cv2.dct(brightness + change)) >= _ENOUGH:
            break
    whole = cv2.resize(change, picture.size, interpolation=cv2.INTER_CUBIC)
    pixels = np.asarray(picture, np.float32) + whole[..., None]
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def detected(picture: Image.Image) -> float:
    """How far a picture agrees with the mark, in standard deviations of pictures without it; see `FOUND`."""
    return _agreement(cv2.dct(_brightness(picture)))


def _change(brightness: Float[np.ndarray, "n n"], *, limit: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """What is added: up the slope of the agreement, nowhere beyond the limit."""
    change = np.zeros_like(brightness)
    for _ in range(_ROUNDS):
        spectrum = cv2.dct(brightness + change)
        if _agreement(spectrum) >= _ENOUGH:
            break
        slope = cv2.idct(_signs() * (1 - np.tanh(spectrum / _MARGIN) ** 2)) * limit
        change = np.clip(change + _STEP * limit * slope / max(slope.std(), 1e-6), -limit, limit)
    return change


def _unseen(brightness: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """How far every pixel may change: more in texture, but not along the border of a smooth place."""
    mean = cv2.blur(brightness, _PLACE)
    deviation = np.sqrt(np.maximum(cv2.blur(brightness**2, _PLACE) - mean**2, 0))
    texture = cv2.erode(deviation, np.ones(_PLACE, np.uint8))
    return np.minimum(_SMOOTH + _TEXTURE * texture, _MOST).astype(np.float32)


def _agreement(spectrum: Float[np.ndarray, "n n"]) -> float:
    wanted = _signs()
    clear = np.tanh(spectrum / _MARGIN) * np.abs(wanted)
    return float((clear * wanted).sum() / max(np.sqrt((clear**2).sum()), 1.0))


def _brightness(picture: Image.Image) -> Float[np.ndarray, "n n"]:
    grey = np.asarray(picture.convert("L"), np.float32)
    way = cv2.INTER_AREA if min(grey.shape) >= _SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=way))


@cache
def _signs() -> Float[np.ndarray, "n n"]:
    """1 or -1 within the band, 0 outside."""
    steps = np.arange(_SIDE)
    distance = np.hypot(steps[:, None], steps[None])
    drawn = np.random.Generator(np.random.PCG64(_KEY)).integers(0, 2, distance.shape) * 2 - 1
    return np.where((distance >= _BAND[0]) & (distance <= _BAND[1]), drawn, 0).astype(np.float32)
