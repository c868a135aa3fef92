from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from consistentid.trust.watermark import FOUND, detected, marked


def _encoded(picture: Image.Image, kind: str, **options: int) -> Image.Image:
    content = BytesIO()
    picture.save(content, kind, **options)
    return Image.open(content).convert("RGB")


@pytest.mark.parametrize("side", [128, 512])
@pytest.mark.parametrize(
    "treated",
    [
        lambda picture: picture,
        lambda picture: _encoded(picture, "JPEG", quality=50),
        lambda picture: _encoded(picture, "WEBP", quality=60),
        lambda picture: picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC),
        lambda picture: picture.resize((300, 300)),
        lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
        lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
        lambda picture: picture.convert("L"),
    ],
    ids=["as it is", "JPEG 50", "WebP 60", "halved", "resized", "brighter", "blurred", "grey"],
)
def test_the_mark_survives(picture: Image.Image, side: int, treated: Callable[[Image.Image], Image.Image]) -> None:
    large = picture.resize((side, side), Image.Resampling.LANCZOS)
    assert abs(detected(treated(large))) < 4
    assert detected(treated(marked(large))) > FOUND


def test_the_mark_is_faint(picture: Image.Image) -> None:
    before, after = np.asarray(picture, np.float64), np.asarray(marked(picture), np.float64)
    assert 10 * np.log10(255**2 / ((after - before) ** 2).mean()) > 37  # dB
    wall = np.s_[:24, -24:]
    assert np.abs(after[wall] - before[wall]).max() <= 3


@pytest.mark.parametrize("colour", ["black", "white", (120, 90, 80)])
def test_plain_pictures(colour: str | tuple[int, int, int]) -> None:
    plain = Image.new("RGB", (96, 160), colour)
    assert abs(detected(plain)) < 1
    assert marked(plain).size == plain.size
    assert np.abs(np.asarray(marked(plain), int) - np.asarray(plain, int)).max() <= 2


def test_pictures_without_the_mark_spread_as_the_threshold_assumes() -> None:
    """Textures of every fineness: agreement has a mean of 0 and a deviation of 1."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(150):
        noise = Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        blurred = noise.filter(ImageFilter.GaussianBlur(float(draw.uniform(0, 3)))).resize((128, 128))
        found.append(detected(ImageEnhance.Contrast(blurred).enhance(3)))
    assert abs(np.mean(found)) < 0.35
    assert 0.7 < np.std(found) < 1.3
    assert np.max(np.abs(found)) < 4.5


def test_every_shape_and_a_cut(picture: Image.Image) -> None:
    for size in ((128, 192), (65, 301), (32, 32)):
        changed = marked(picture.resize(size))
        assert changed.size == size
    cut = marked(picture).crop((12, 12, 116, 116))
    assert detected(cut) < FOUND  # the documented limit: cropping removes the mark
