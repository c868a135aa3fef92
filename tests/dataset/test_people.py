"""One name per person: measured on made-up people whose photos scatter around a point."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistentid.dataset import people
from consistentid.dataset.people import cluster
from consistentid.errors import InvalidData


def _people(sizes: list[int], *, spread: float = 0.02, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Embeddings like dlib's: people about 0.8 apart, photos of one person about 0.3."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), 128)) * 0.05
    who = [person for person, size in enumerate(sizes) for _ in range(size)]
    return (centres[who] + rng.normal(size=(len(who), 128)) * spread).astype(np.float32), who


def _names(embeddings: np.ndarray, stated: list[str | None] | None = None) -> list[str]:
    ids = [f"{index:04x}" for index in range(len(embeddings))]
    return cluster(embeddings, stated or [None] * len(ids), ids=ids, recogniser="dlib hog")


def _partition(labels: list[str] | list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, other in enumerate(labels) if other == label) for label in labels}


def test_photos_of_one_person_get_the_name_of_the_first() -> None:
    embeddings, who = _people([1, 3, 2, 40])
    names = _names(embeddings)
    assert _partition(names) == _partition(who)
    assert names[:4] == ["person-0000", "person-0001", "person-0001", "person-0001"]


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_the_order_of_the_photos_does_not_matter(sizes: list[int], seed: int) -> None:
    embeddings, _ = _people(sizes, spread=0.03, seed=seed)  # photos of one person about 0.48 apart: near the limit
    ids = [f"{index:04x}" for index in range(len(embeddings))]
    order = np.random.default_rng(seed).permutation(len(ids))
    names = cluster(embeddings, [None] * len(ids), ids=ids, recogniser="dlib")
    shuffled = cluster(embeddings[order], [None] * len(ids), ids=[ids[index] for index in order], recogniser="dlib")
    assert shuffled == [names[index] for index in order]


def test_a_chain_of_photos_is_not_one_person() -> None:
    steps = np.zeros((9, 128), np.float32)
    steps[:, 0] = np.arange(9) * 0.35  # each like the next, the ends 2.8 apart
    groups = _partition(_names(steps))
    assert len(groups) > 3
    for group in groups:
        assert np.ptp(steps[sorted(group), 0]) < 0.8


def test_stated_names_win_and_are_never_joined() -> None:
    embeddings, _ = _people([4], spread=0.005)
    assert _names(embeddings, ["Ann", "Ben", None, "Ann"])[:2] == ["Ann", "Ben"]
    names = _names(embeddings, ["Ann", "Ben", None, "Ann"])
    assert names[2] in ("Ann", "Ben")
    assert names[3] == "Ann"
    everybody: list[str | None] = ["Ann", "Ben", "Cas", "Ann"]
    assert _names(embeddings, everybody) == everybody
    apart, _ = _people([1, 1])
    assert _names(apart, ["Ann", "Ann"]) == ["Ann", "Ann"]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 999))
def test_stated_names_stay_whatever_else_is_stated(data: st.DataObject, sizes: list[int], seed: int) -> None:
    embeddings, who = _people(sizes, seed=seed)
    stated = [f"name {person}" if data.draw(st.booleans()) else None for person in who]
    names = _names(embeddings, stated)
    assert [name for name, given in zip(names, stated, strict=True) if given] == [name for name in stated if name]
    assert _partition(names) == _partition(who)


def test_a_name_is_given_only_to_photos_that_are_clearly_alike() -> None:
    def pair(apart: float) -> np.ndarray:
        values = np.zeros((2, 128), np.float32)
        values[1, 0] = apart
        return values

    assert _names(pair(0.39), ["Ann", None]) == ["Ann", "Ann"]
    assert _names(pair(0.42), ["Ann", None]) == ["Ann", "person-0001"]
    assert _names(pair(0.42)) == ["person-0000", "person-0000"]


def test_blocks_give_what_one_table_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, _ = _people([3, 1, 5, 2, 7, 4], spread=0.03)
    whole = _names(embeddings)
    monkeypatch.setattr(people, "_ROWS", 3)
    monkeypatch.setattr(people, "_COLUMNS", 4)
    assert _names(embeddings) == whole
    monkeypatch.setattr(people, "_NEAREST", 4)
    assert _names(_people([30, 30])[0]) == ["person-0000"] * 30 + ["person-001e"] * 30


def test_nothing_and_unknown_recognisers() -> None:
    assert cluster(np.zeros((0, 128), np.float32), [], ids=[], recogniser="dlib") == []
    with pytest.raises(InvalidData, match="no distances are known"):
        cluster(np.zeros((1, 4), np.float32), [None], ids=["a"], recogniser="mine")
