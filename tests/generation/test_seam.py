"""Colours and grain of a repainted part follow the picture around it."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.masks import Blend
from consistentid.generation.seam import matched

RANDOM = np.random.default_rng(0)
Y, X = np.mgrid[0:128, 0:128] / 128
SCENE = np.stack([90 + 70 * X, 80 + 60 * Y, 100 + 40 * X * Y], -1)
MASK = Image.fromarray(np.where((abs(X - 0.5) < 0.25) & (abs(Y - 0.5) < 0.25), 255, 0).astype(np.uint8))
INSIDE = np.asarray(MASK) > 0


def picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


def grain(image: Image.Image) -> float:
    grey = image.convert("L")
    return float((np.asarray(grey, float) - np.asarray(grey.filter(ImageFilter.GaussianBlur(1)), float))[INSIDE].std())


def test_a_colour_cast_and_missing_grain_are_mended() -> None:
    original = picture(SCENE + RANDOM.normal(0, 8, SCENE.shape[:2])[..., None])
    smooth = picture(SCENE * 0.9 + (25, -10, 5))
    made = matched(smooth, original, MASK)
    before, after = (np.abs(np.asarray(one, float) - SCENE)[INSIDE].mean(0) for one in (smooth, made))
    assert before.max() > 12
    assert np.abs((np.asarray(made, float) - SCENE)[INSIDE].mean(0)).max() < 4
    assert after.mean() < before.mean()
    assert grain(smooth) < 1
    assert grain(made) == pytest.approx(grain(original), rel=0.25)
    assert np.array_equal(np.asarray(made), np.asarray(matched(smooth, original, MASK))), "the noise is always the same"


def test_what_fits_already_stays() -> None:
    original = picture(SCENE + RANDOM.normal(0, 3, SCENE.shape))
    difference = np.asarray(matched(original, original, MASK), int) - np.asarray(original, int)
    assert np.abs(difference).max() <= 1
    everywhere = Image.new("L", (128, 128), 255)
    assert matched(original, original, everywhere) is original


def test_a_blend_matches_only_when_asked() -> None:
    original, other = picture(SCENE), picture(SCENE * 0.8 + 30)
    plain, fitted = (np.asarray(Blend(original, MASK, match).over(other)) for match in (False, True))
    assert np.array_equal(plain[INSIDE], np.asarray(other)[INSIDE])
    assert not np.array_equal(fitted[INSIDE], np.asarray(other)[INSIDE])
    for made in (plain, fitted):
        assert np.array_equal(made[~INSIDE], np.asarray(original)[~INSIDE])


def test_it_is_an_input_of_inpainting(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    inputs = {"mask_image": "face", "mask_match": True}
    plain, fitted = (
        generator.generate(drawn, "a person", task="inpaint", inputs=given, steps=2)[0].image
        for given in ({"mask_image": "face"}, inputs)
    )
    assert not np.array_equal(np.asarray(plain), np.asarray(fitted))
    with pytest.raises(InvalidSettings, match="mask_match is for automatic masks"):
        generator.generate(
            drawn, "a person", task="inpaint", inputs={"image": plain, "mask_image": MASK, "mask_match": True}, steps=1
        )
