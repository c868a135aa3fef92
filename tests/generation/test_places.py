"""Boxes and masks -> windows and shares: everybody's pixels are predicted, by the right window, once."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from consistentid.errors import InvalidSettings, UnreadableImage
from consistentid.generation.places import (
    Layout,
    automatic_places,
    automatic_size,
    complete_places,
    layout_of,
    mask_place,
    with_masks,
)
from consistentid.generation.settings import GenerationSettings

NATIVE = (16, 16)


def laid_out(*places: str, grid: tuple[int, int] = (16, 32), smallest: int = 12) -> Layout:
    complete = complete_places(places, people=len(places))
    return layout_of(complete, grid=grid, native=NATIVE, smallest=smallest, pixels=8)


def test_two_side_by_side() -> None:
    assert automatic_places(2) == ("0,0,0.5,1", "0.5,0,1,1")
    assert automatic_size(2, (128, 128), multiple=8) == (240, 128)
    assert automatic_size(2, (512, 768), multiple=8) == (960, 768)
    layout = laid_out(*automatic_places(2), grid=(16, 30))
    assert (layout.window, layout.corners) == ((16, 16), ((0, 0), (0, 14)))
    first = layout.shares[0, 8]
    assert first[:14].tolist() == [1] * 14
    assert first[14:16].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert first[16:].tolist() == [0] * 14


def test_windows_grow_to_overlap() -> None:
    layout = laid_out("0,0,0.5,1", "0.5,0,1,1")
    assert (layout.window, layout.corners) == ((16, 17), ((0, 0), (0, 15)))


def test_one_person_alone_has_the_whole_canvas() -> None:
    layout = laid_out("0,0,1,1", grid=(24, 40))
    assert (layout.window, layout.corners) == ((24, 40), ((0, 0),))
    assert torch.equal(layout.shares, torch.ones(1, 24, 40))
    assert laid_out("0.3,0.1,0.9,0.8", grid=(24, 40)).window == (24, 40), "what is nobody's counts as the nearest one's"


def test_a_window_smaller_than_its_surroundings_lies_around_its_place() -> None:
    layout = laid_out("0.1,0,0.4,1", "0.5,0,1,1", grid=(16, 24), smallest=4)
    assert layout.window == (16, 16)
    assert layout.corners == ((0, 0), (0, 8))


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).map(sorted),
    grid=st.tuples(st.integers(10, 40), st.integers(20, 70)),
    across=st.booleans(),
)
def test_every_pixel_is_shared_out_inside_the_windows(cuts: list[int], grid: tuple[int, int], across: bool) -> None:
    edges = [0, *(cut / 10 for cut in cuts), 1]
    spans = list(pairwise(edges))
    places = [f"0,{a},1,{b}" if across else f"{a},0,{b},1" for a, b in spans]
    layout = laid_out(*places, grid=grid, smallest=1)
    torch.testing.assert_close(layout.shares.sum(0), torch.ones(grid))
    height, width = layout.window
    assert height >= min(16, grid[0])
    assert width >= min(16, grid[1])
    for share, (top, left) in zip(layout.shares, layout.corners, strict=True):
        assert 0 <= top <= grid[0] - height
        assert 0 <= left <= grid[1] - width
        outside = share.clone()
        outside[top : top + height, left : left + width] = 0
        assert not outside.any()
    for k, (a, b) in enumerate(spans):
        middle = int((a + b) / 2 * grid[0 if across else 1])
        column = layout.shares[:, middle, grid[1] // 2] if across else layout.shares[:, grid[0] // 2, middle]
        assert column[k] >= column.max() - 1e-6


def test_masks_are_kept_in_the_record(tmp_path: Path) -> None:
    circle = np.hypot(*np.mgrid[-64:64, -64:192]) < 60
    Image.fromarray(circle.astype(np.uint8) * 255).save(tmp_path / "circle.png")
    places = with_masks(["circle.png", "0.5,0,1,1"], tmp_path)
    assert places == with_masks(places)
    assert places == (mask_place(tmp_path / "circle.png"), "0.5,0,1,1")
    assert places[0].startswith("mask:256x128:")
    assert len(places[0]) < 600
    layout = laid_out(*places)
    assert layout.shares[0, 8, :14].tolist() == [1] * 14
    assert layout.corners[0][1] == 0
    assert laid_out(*places, grid=(32, 64)).shares[0, 16, :28].min() == 1, "a mask is for any canvas"


@pytest.mark.parametrize("damaged", ["mask:9x9", "mask:axb:", "mask:9x9:????", "mask:9999x9999:eJw=", "mask:8x0:eJw="])
def test_a_damaged_mask(damaged: str) -> None:
    with pytest.raises(InvalidSettings, match="a place is a damaged mask"):
        laid_out(damaged)


@pytest.mark.parametrize(
    ("places", "people", "grid", "message"),
    [
        (["0,0,0.6,1", "0.5,0,1,1"], 2, (16, 32), "places 1 and 2 overlap; move one of them"),
        (["0,0,0.5,1", "0.5,0,1.2,1"], 2, (16, 32), "place 0.5,0,1.2,1 is no box inside the canvas: left, top, right"),
        (["0.5,0,0.5,1"], 1, (16, 32), "is no box inside the canvas"),
        (["nan,0,1,1"], 1, (16, 32), "is no box inside the canvas"),
        (["/etc/mask.png"], 1, (16, 32), "place /etc/mask.png is no box inside the canvas"),
        (["0,0,0.5,1"], 2, (16, 32), "places given: 1, people: 2; give one for each"),
        ([], 5, (16, 16), "up to 4 people are placed automatically; give 5 places"),
        ([], 2, (16, 16), "place 1 is 64 x 128 px, the model needs 96 px each way; choose a larger size, or fewer"),
        ([f"{k / 5},0,{(k + 1) / 5},1" for k in range(5)], 5, (16, 16), "place 1 is 24 x 128 px, the model needs 96"),
    ],
)
def test_impossible_places_are_one_sentence(
    places: list[str], people: int, grid: tuple[int, int], message: str
) -> None:
    with pytest.raises(InvalidSettings, match=message):
        layout_of(complete_places(places, people=people), grid=grid, native=NATIVE, smallest=12, pixels=8)


def test_a_missing_mask_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="does not exist"):
        mask_place(tmp_path / "none.png")
    with pytest.raises(InvalidSettings, match="place 1 is 0 x 0 px"):
        laid_out(mask_place(Image.new("RGB", (32, 16))))


def test_boxes_as_numbers() -> None:
    asked = GenerationSettings.of(places=[[0, 0, 0.5, 1], "0.5,0,1,1", (1 / 3, 0, 1, 1)])
    assert asked.places == ("0,0,0.5,1", "0.5,0,1,1", f"{1 / 3},0,1,1")
    assert complete_places(asked.places[2:], people=1) == asked.places[2:]
