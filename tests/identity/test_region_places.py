"""Whose identity tokens act where."""

import numpy as np
import pytest
import torch

from consistentid.faces.regions import LABEL_NAMES, REGION_NAMES
from consistentid.generation.presets import PRESETS
from consistentid.identity.region_places import place_masks, places_of, shares_of_givers

PLACES = PRESETS["embedded"].region_places
GRID = (16, 16)


def test_every_region_of_the_embedded_model_has_a_place_of_its_own() -> None:
    masks = place_masks(PLACES, REGION_NAMES, GRID)
    assert set(PLACES) == set(REGION_NAMES)
    assert masks.amin() >= 0
    assert masks.amax() <= 1
    assert (masks.flatten(1).amax(1) > 0.7).all()
    for one in range(len(REGION_NAMES)):
        for other in range(one):
            assert float((masks[one] * masks[other]).sum()) < 0.4 * float(masks[[one, other]].sum((1, 2)).min())


def test_masks_cover_their_boxes_on_any_grid() -> None:
    places = {"eyes": ((0.25, 0.5, 0.75, 0.625),)}
    for size in ((16, 16), (24, 16), (64, 96)):
        mask = place_masks(places, ["eyes"], size)[0]
        assert float(mask.mean()) == pytest.approx(0.5 * 0.125, rel=0.02)
        assert float(mask[int(0.56 * size[0]), size[1] // 2]) > 0.8
        assert not mask[: int(0.4 * size[0])].any()


def test_a_region_without_a_place_is_nowhere() -> None:
    assert not place_masks({}, ["eyes", ""], GRID).any()


def test_shares_sum_to_one_whoever_gives() -> None:
    masks = place_masks(PLACES, ["eyes", "nose", "mouth"], GRID)
    shares = shares_of_givers(masks, [1.0, 1.0, 1.0])
    torch.testing.assert_close(shares.sum(0), torch.ones(GRID))
    assert shares.amin() >= -1e-6


def test_weights_hold_in_the_place_alone() -> None:
    masks = place_masks(PLACES, ["eyes", "mouth"], GRID)
    nothing = shares_of_givers(masks, [0.0, 0.0])
    assert torch.equal(nothing[0], torch.ones(GRID))
    assert not nothing[1:].any()
    more = shares_of_givers(masks, [1.5, 0.5])
    torch.testing.assert_close(more[1], 1.5 * masks[0])
    torch.testing.assert_close(more[0], 1 - masks[0] - 0.5 * masks[1])


def test_places_of_a_picture_are_boxes_around_the_parts_of_its_regions() -> None:
    labels = np.zeros((40, 80), np.uint8)
    labels[10:20, 20:30] = LABEL_NAMES.index("left_eye")
    labels[10:20, 50:60] = LABEL_NAMES.index("right_eye")
    labels[38, 78] = LABEL_NAMES.index("right_eye")  # a speck
    assert places_of(labels)["eyes"] == ((0.25, 0.25, 0.375, 0.5), (0.625, 0.25, 0.75, 0.5))
