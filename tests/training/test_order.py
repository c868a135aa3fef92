"""Every photo once an epoch, batches of equal proportions, targets inside their photos."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from consistentid.training.adapter.framing import assign_buckets, buckets, frame_photo
from consistentid.training.adapter.order import Order
from consistentid.training.share import Share


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 7), st.integers(0, 2))
def test_every_photo_is_seen_in_every_epoch(members: list[int], count: int, epoch: int) -> None:
    order = Order(members, count, seed=1)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    seen = [order.batch(step) for step in steps]
    assert {int(index) for _, batch in seen for index in batch} == set(range(len(members)))
    assert all(len(batch) == count and {members[index] for index in batch} == {bucket} for bucket, batch in seen)
    again = Order(members, count, seed=1).batch(steps[-1])
    assert (again[1] == seen[-1][1]).all()


def test_epochs_are_shuffled_anew() -> None:
    order = Order([0] * 64, 64, seed=0)
    assert (order.batch(0)[1] != order.batch(1)[1]).any()


@given(st.integers(2, 16))
def test_buckets_have_about_the_same_number_of_pixels(eighth: int) -> None:
    resolution = 64 * eighth
    sizes = buckets(resolution)
    assert (resolution, resolution) in sizes
    assert all(side % 64 == 0 for size in sizes for side in size)
    assert all(0.5 * resolution**2 <= width * height <= 1.1 * resolution**2 for width, height in sizes)


def test_photos_go_to_the_nearest_bucket_that_is_not_nearly_empty() -> None:
    sizes = [(64, 128), (128, 128), (128, 64)]
    widths, heights = [100, 110, 100, 200], [100, 100, 105, 100]
    assert assign_buckets(widths, heights, sizes, least=1) == [1, 1, 1, 2]
    assert assign_buckets(widths, heights, sizes, least=2) == [1, 1, 1, 1]
    assert assign_buckets(widths, heights, sizes, least=9) == [1, 1, 1, 1]


@given(st.integers(70, 300), st.integers(70, 300), st.floats(0, 1), st.floats(0, 1))
def test_a_target_is_filled_by_the_photo_and_keeps_the_face(width: int, height: int, x: float, y: float) -> None:
    photo = Image.new("RGB", (width, height), (200, 100, 50))
    labels = np.ones((height, width), np.uint8)
    middle = (10 + x * (width - 20), 10 + y * (height - 20))
    box = (middle[0] - 8, middle[1] - 8, middle[0] + 8, middle[1] + 8)
    framed = frame_photo(photo, labels, (128, 64), box=box)
    assert framed.photo.shape == (64, 128, 3)
    assert (framed.photo == (200, 100, 50)).all()
    scale = max(128 / width, 64 / height)
    top, left = framed.place[2:4]
    assert left - 1 <= middle[0] * scale <= left + 129
    assert top - 1 <= middle[1] * scale <= top + 65
    assert framed.place[:2] == (height, width)


@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_shares_follow_each_other(step: int, turns: int, processes: int, parts: int) -> None:
    first = Share(3, step, processes - 1, processes, 0, turns)
    later = first
    for _ in range(parts):
        later = later.after(1)
    assert later == first.after(parts)
    assert 0 <= later.index < later.count
    indices = [Share(3, step, process, processes).after(0).index for process in range(processes)]
    assert indices == list(range(processes))
