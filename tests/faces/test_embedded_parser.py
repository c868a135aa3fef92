"""The parser that ships with the package, on the sample photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import consistentid
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.faces.description import GeometryDescriber
from consistentid.faces.regions import REGION_NAMES

EMBEDDED = Path(consistentid.__file__).parent / "embedded"


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer.from_pretrained(EMBEDDED)


def centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)[::-1]


def check_regions(analysis: FaceAnalysis) -> None:
    masks = analysis.region_masks
    assert tuple(masks) == REGION_NAMES
    left, right, nose, *mouth = analysis.landmarks
    distance = np.linalg.norm(right - left)
    assert np.linalg.norm(centre(masks["eyes"]) - (left + right) / 2) < 0.2 * distance
    assert np.linalg.norm(centre(masks["nose"]) - nose) < 0.4 * distance
    assert np.linalg.norm(centre(masks["mouth"]) - np.mean(mouth, 0)) < 0.2 * distance
    assert 1 < masks["face"].sum() / distance**2 < 12
    for inner in ("eyes", "nose", "mouth"):
        assert (masks[inner] & masks["face"]).sum() > 0.9 * masks[inner].sum()


def test_every_region_is_found_in_both_photos(analyzer: FaceAnalyzer, woman: Image.Image, man: Image.Image) -> None:
    assert isinstance(analyzer.describer, GeometryDescriber)
    for photo in (woman, man):
        analysis = analyzer.analyze(photo)
        check_regions(analysis)
        assert all(word in analysis.description for word in ("face", "eye", "nose", "mouth"))


def test_tilted_grey_and_small_photos_are_parsed_too(analyzer: FaceAnalyzer, woman: Image.Image) -> None:
    tilted = woman.rotate(30, Image.Resampling.BICUBIC, expand=True, fillcolor="grey")
    for photo in (tilted, woman.convert("L"), woman.resize((180, 180))):
        check_regions(analyzer.analyze(photo))


def test_a_wider_photo_gives_the_same_regions(analyzer: FaceAnalyzer, woman: Image.Image) -> None:
    wide = Image.new("RGB", (1024, 512), "grey")
    wide.paste(woman, (300, 0))
    alone, placed = analyzer.analyze(woman).region_masks, analyzer.analyze(wide).region_masks
    for name in ("face", "eyes", "nose", "mouth"):
        moved = placed[name][:, 300:812]
        assert (moved & alone[name]).sum() / (moved | alone[name]).sum() > 0.6
