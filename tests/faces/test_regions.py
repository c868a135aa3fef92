"""Region masks, against masks made by the released code."""

from pathlib import Path

import numpy as np
import pytest

from consistentid.faces.regions import (
    LABEL_NAMES,
    REGION_NAMES,
    REGIONS,
    mirror_labels,
    official_region_masks,
    region_masks,
)

RELEASED = np.load(Path(__file__).parents[1] / "fixtures" / "parity" / "masks.npz")


@pytest.fixture
def label_map() -> np.ndarray:
    return RELEASED["parsing"]


def test_official_masks_equal_the_release_in_label_order(label_map: np.ndarray) -> None:
    expected = {"face": "Face", "eyes": "Left_Eye", "ears": "Left_Ear", "nose": "Nose", "mouth": "Upper_Lip"}
    masks = official_region_masks(label_map)
    assert list(masks) == list(expected)
    for region, name in expected.items():
        assert np.array_equal(masks[region], RELEASED[name])


def test_official_masks_take_the_other_one_of_a_pair(label_map: np.ndarray) -> None:
    hidden = np.where(label_map == 4, 1, label_map).astype(np.uint8)
    assert np.array_equal(official_region_masks(hidden)["eyes"], RELEASED["Right_Eye"])


def test_official_masks_are_resized_to_the_photo(label_map: np.ndarray) -> None:
    masks = official_region_masks(label_map, size=(300, 200))
    assert all(mask.shape == (200, 300) for mask in masks.values())


def test_aligned_masks_hold_both_of_a_pair_and_fill_the_face(label_map: np.ndarray) -> None:
    masks = region_masks(label_map)
    assert tuple(masks) == REGION_NAMES == ("face", "ears", "eyes", "nose", "mouth")
    assert np.array_equal(masks["ears"], np.isin(label_map, (7, 8)))
    assert np.array_equal(masks["eyes"], np.isin(label_map, (4, 5)))
    assert not (masks["eyes"] & ~masks["face"]).any()


def test_absent_regions_are_left_out(label_map: np.ndarray) -> None:
    hidden = np.where(np.isin(label_map, (7, 8)), 17, label_map).astype(np.uint8)
    assert list(region_masks(hidden)) == ["face", "eyes", "nose", "mouth"]
    assert list(official_region_masks(hidden)) == ["face", "eyes", "nose", "mouth"]
    assert region_masks(np.zeros((4, 4), np.uint8)) == {}


def test_mirroring_twice_changes_nothing_and_swaps_sides(label_map: np.ndarray) -> None:
    mirrored = mirror_labels(label_map)
    assert np.array_equal(mirror_labels(mirrored), label_map)
    assert np.nonzero(mirrored == 4)[1].mean() < np.nonzero(mirrored == 5)[1].mean()


def test_the_table_names_every_region_once() -> None:
    assert len(LABEL_NAMES) == 19
    words = [word for region in REGIONS for word in region.words]
    assert len(words) == len(set(words))
