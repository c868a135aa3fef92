"""Verification scores on cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistentid.evaluation.verification import area_under_curve, bootstrap_interval, verification_scores

GALLERY = np.eye(4)


def test_perfect_portraits() -> None:
    scores = verification_scores(list(GALLERY), np.arange(4), GALLERY)
    assert (scores.found, scores.rank1, scores.auc, scores.own) == (1, 1, 1, 0)


def test_portraits_of_somebody_else() -> None:
    scores = verification_scores(list(np.roll(GALLERY, 1, axis=0)), np.arange(4), GALLERY)
    assert scores.rank1 == 0
    assert scores.auc < 0.5


def test_a_portrait_without_a_face_is_a_failure() -> None:
    scores = verification_scores([*GALLERY[:3], None], np.arange(4), GALLERY)
    assert (scores.portraits, scores.found, scores.rank1) == (4, 0.75, 0.75)


def test_no_face_at_all() -> None:
    scores = verification_scores([None, None], np.array([0, 1]), GALLERY)
    assert (scores.found, scores.rank1) == (0, 0)


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_auc_equals_counting_pairs(genuine: list[int], impostor: list[int]) -> None:
    pairs = [(g < i) + 0.5 * (g == i) for g in genuine for i in impostor]
    assert area_under_curve(np.array(genuine), np.array(impostor)) == pytest.approx(np.mean(pairs))


def test_bootstrap_contains_the_mean_and_shrinks() -> None:
    values = np.random.default_rng(1).random(400)
    low, high = bootstrap_interval(values)
    few_low, few_high = bootstrap_interval(values[:25])
    assert low < values.mean() < high
    assert high - low < few_high - few_low
