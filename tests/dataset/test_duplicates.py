"""Copies are found, other photos are not, in whatever order they come."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from consistentid.dataset.duplicates import near_duplicates, perceptual_hash
from consistentid.images import load_photo

Items = list[tuple[int, int]]


def _bits(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _jpeg(image: Image.Image) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


@pytest.mark.parametrize("name", ["synthetic-woman", "official-man"])
def test_copies_have_nearly_the_same_hash(name: str, sample_photos: dict[str, Path]) -> None:
    image = load_photo(sample_photos[name])
    width, height = image.size
    copies = {
        "jpeg": _jpeg(image),
        "half": image.resize((width // 2, height // 2)),
        "cut": image.crop((width // 100, height // 100, width - width // 100, height - height // 100)),
        "brighter": image.point(lambda value: min(255, round(1.1 * value))),
    }
    code = perceptual_hash(np.asarray(image))
    assert {
        kind: _bits(code, perceptual_hash(np.asarray(copy))) <= 8 for kind, copy in copies.items()
    } == dict.fromkeys(copies, True)
    assert _bits(code, perceptual_hash(np.asarray(image)[:, ::-1])) > 10


def test_hashes_are_frozen(sample_photos: dict[str, Path]) -> None:
    hashes = {name: perceptual_hash(np.asarray(load_photo(path))) for name, path in sample_photos.items()}
    assert hashes == {"official-man": "6da518b211f28dcb", "synthetic-woman": "2fbd12b013d3b00f"}


def test_both_the_hash_and_the_embedding_must_agree() -> None:
    same, near, far = 0, 0b111, (1 << 30) - 1
    codes = [f"{code:016x}" for code in (same, same, near, far, same)]
    embeddings = np.array([[0.0, 0], [0.1, 0], [0.1, 0], [0, 0], [5, 5]], np.float32)
    assert near_duplicates(codes, embeddings, embedding=0.3) == {1: 0, 2: 0}
    assert near_duplicates(codes, embeddings, embedding=0.3, distance=2) == {1: 0}
    assert near_duplicates([], embeddings[:0], embedding=0.3) == {}


def test_the_less_the_hashes_agree_the_more_the_embeddings_must() -> None:
    codes = [f"{code:016x}" for code in (0, 0b11111)]  # half of the ten bits
    for apart, is_copy in ((0.14, True), (0.16, False)):
        embeddings = np.array([[0, 0], [apart, 0]], np.float32)
        assert near_duplicates(codes, embeddings, embedding=0.3) == ({1: 0} if is_copy else {})


def _duplicates(items: Items) -> dict[int, int]:
    codes = [f"{code:016x}" for code, _ in items]
    return near_duplicates(codes, np.array([[value, 0.0] for _, value in items], np.float32), embedding=2.0)


def _brute(items: Items) -> dict[int, int]:
    """Every pair, then copies of copies, until nothing changes."""
    kept = list(range(len(items)))
    for _ in items:
        for a, (code, value) in enumerate(items):
            for b, (other, number) in enumerate(items):
                if (code ^ other).bit_count() / 10 + abs(value - number) / 2.0 <= 1:
                    kept[a] = kept[b] = min(kept[a], kept[b])
    return {index: first for index, first in enumerate(kept) if index != first}


# Few bits, in all parts of the hash, so that many pairs are near the limit.
_codes = st.lists(st.integers(0, 63), max_size=9).map(lambda bits: sum(1 << bit for bit in set(bits)))
_items = st.lists(st.tuples(_codes, st.integers(0, 2)), max_size=9)


@settings(max_examples=60, deadline=None)
@given(items=_items, seed=st.integers(0, 99))
def test_pieces_miss_no_pair_and_the_order_only_says_who_is_kept(items: Items, seed: int) -> None:
    found = _duplicates(items)
    assert found == _brute(items)
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    shuffled = _duplicates([items[index] for index in order])
    groups = {frozenset((order[copy], order[first])) for copy, first in shuffled.items()}
    # photos in one group before are in one group after
    for copy, first in found.items():
        where = {order.index(copy), order.index(first)}
        assert len({shuffled.get(index, index) for index in where}) == 1
    assert len(groups) == len(found)


def test_many_photos_of_one_studio_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consistentid.dataset.duplicates._TABLE", 10)
    monkeypatch.setattr("consistentid.dataset.duplicates._GATHERED", 3)
    items = [(0b1, value % 5 * 9) for value in range(40)]
    assert _duplicates(items) == {index: index % 5 for index in range(5, 40)}
