"""Verification scores on cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from consistentid.evaluation.verification import (
    _weighted_scores,
    pairs_of,
    rank1_hits,
    roc,
    roc_estimates,
    verification_scores,
)

GALLERY = np.eye(4)
DISTANCES = st.lists(st.integers(0, 9), min_size=1, max_size=20)


def test_perfect_portraits() -> None:
    scores = verification_scores(list(GALLERY), np.arange(4), GALLERY)
    assert (scores.found, scores.rank1, scores.auc, scores.own, scores.eer) == (1, 1, 1, 0, 0)
    assert scores.tar == {0.01: 1, 0.001: 1}
    assert scores.impostors == 12


def test_portraits_of_somebody_else() -> None:
    scores = verification_scores(list(np.roll(GALLERY, 1, axis=0)), np.arange(4), GALLERY)
    assert scores.rank1 == 0
    assert scores.auc < 0.5
    assert scores.tar[0.01] == 0


def test_a_portrait_without_a_face_is_a_failure() -> None:
    scores = verification_scores([*GALLERY[:3], None], np.arange(4), GALLERY)
    assert (scores.portraits, scores.found, scores.rank1, scores.tar[0.01]) == (4, 0.75, 0.75, 0.75)


def test_no_face_at_all() -> None:
    scores = verification_scores([None, None], np.array([0, 1]), GALLERY)
    assert (scores.found, scores.rank1) == (0, 0)
    assert np.isnan(scores.auc)


@given(DISTANCES, DISTANCES)
def test_auc_equals_counting_pairs(genuine: list[int], impostor: list[int]) -> None:
    pairs = [(g < i) + 0.5 * (g == i) for g in genuine for i in impostor]
    assert roc(np.array(genuine), np.array(impostor)).auc == pytest.approx(np.mean(pairs))


@given(DISTANCES, DISTANCES)
def test_tar_equals_trying_every_threshold(genuine: list[int], impostor: list[int]) -> None:
    accepted = [
        np.mean(np.array(genuine) <= threshold)
        for threshold in range(-1, 10)
        if np.mean(np.array(impostor) <= threshold) <= 0.01
    ]
    assert roc(np.array(genuine), np.array(impostor)).tar[0.01] == pytest.approx(max(accepted))


def test_equal_error_rate_of_two_shifted_rows() -> None:
    curve = roc(np.arange(0, 100), np.arange(80, 180))  # 80..99 of either lie on the wrong side of any threshold there
    assert curve.eer == pytest.approx(0.1, abs=0.006)


@given(DISTANCES, DISTANCES, st.randoms())
def test_neither_order_nor_duplicates_matter(genuine: list[int], impostor: list[int], random: object) -> None:
    once = roc(np.array(genuine), np.array(impostor))
    shuffled = sorted(genuine * 3, key=lambda _: random.random())  # type: ignore[attr-defined]
    again = roc(np.array(shuffled), np.array(impostor * 2))
    assert (again.auc, again.eer) == pytest.approx((once.auc, once.eer))


def test_people_counted_twice_are_like_people_there_twice() -> None:
    """But for pairs of a person with its own copy, which are genuine: here nobody is doubled in the gallery."""
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(6, 3))
    embeddings = [row + rng.normal(size=3) for row in gallery]
    pairs = pairs_of(embeddings, np.arange(6), gallery)
    weights = np.array([[2.0, 1, 0, 3, 1, 1]])
    wanted = roc_auc_score(
        pairs.is_own.ravel(),
        -pairs.distances.ravel(),
        sample_weight=np.where(pairs.is_own, weights.T, weights.T * weights).ravel(),
    )
    assert _weighted_scores(pairs, weights)[0, 0] == pytest.approx(wanted)


def test_the_same_as_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    gallery = rng.normal(size=(12, 5))
    embeddings = gallery + rng.normal(size=gallery.shape)
    pairs = pairs_of(list(embeddings), np.arange(12), gallery)
    expected = roc_auc_score(pairs.is_own.ravel(), -pairs.distances.ravel())
    assert verification_scores(list(embeddings), np.arange(12), gallery).auc == pytest.approx(expected)


def test_estimates_hold_the_scores() -> None:
    rng = np.random.default_rng(2)
    gallery = rng.normal(size=(15, 6))
    embeddings = [*(gallery + rng.normal(size=gallery.shape))[:14], None]
    pairs = pairs_of(embeddings, np.arange(15), gallery)
    scores = verification_scores(embeddings, np.arange(15), gallery)
    estimates = roc_estimates(pairs, rounds=50)
    assert estimates["auc"].value == pytest.approx(scores.auc)
    assert estimates["tar@far=0.01"].value == pytest.approx(scores.tar[0.01])
    assert estimates["auc"].low < scores.auc < estimates["auc"].high
    assert estimates["auc"].subjects == 14


def test_ties_are_no_hits() -> None:
    pairs = pairs_of([np.zeros(2)], np.array([0]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert not rank1_hits(pairs)[0]
