"""Distances between sets, spread and adherence, on cases whose answer is known."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from consistentid.evaluation.adherence import gender_axis, leaning, obeys
from consistentid.evaluation.diversity import deviation, pairwise_spread
from consistentid.evaluation.embedders import cosine
from consistentid.evaluation.image_metrics import set_distance
from consistentid.evaluation.measured import Measured
from consistentid.faces.attributes import BACKGROUND_COLOURS, HAIR_COLOURS, FaceAttributes

RNG = np.random.default_rng(0)
REAL, MADE = RNG.normal(size=(40, 6)), RNG.normal(size=(30, 6)) * 1.2 + 0.3


def test_fid_is_the_formula() -> None:
    means = REAL.mean(0) - MADE.mean(0)
    a, b = np.cov(REAL.T), np.cov(MADE.T)
    wanted = means @ means + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert set_distance(REAL, MADE).fid == pytest.approx(wanted, rel=1e-6)


def test_kid_is_unbiased_mmd() -> None:
    few = MADE[:30]
    real = REAL[:30]

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / 6 + 1) ** 3

    off = ~np.eye(30, dtype=bool)
    wanted = kernel(real, real)[off].mean() + kernel(few, few)[off].mean() - 2 * kernel(real, few).mean()
    assert set_distance(real, few).kid == pytest.approx(wanted)


def test_a_set_is_no_distance_from_itself_and_order_does_not_matter() -> None:
    assert set_distance(REAL, REAL).fid == pytest.approx(0, abs=1e-4)
    assert set_distance(REAL, MADE[::-1]).fid == pytest.approx(set_distance(REAL, MADE).fid)
    assert set_distance(REAL, MADE) == set_distance(REAL, MADE)
    assert np.isnan(set_distance(REAL, MADE[:1]).fid)


def test_spread_of_equal_and_opposite_portraits() -> None:
    one = np.array([1.0, 2.0])
    assert pairwise_spread([one, one, 3 * one]) == pytest.approx(0)
    assert pairwise_spread([one, -one]) == pytest.approx(2)
    assert np.isnan(pairwise_spread([one]))
    assert deviation([1.0, 3.0]) == 1
    assert np.isnan(deviation([1.0, np.nan]))


def test_cosine_of_nothing_is_nothing() -> None:
    assert cosine(np.zeros(3), np.ones(3)) == 0


def portrait(**changes: object) -> Measured:
    values = {
        "hair": "blond", "hair_lab": np.array(HAIR_COLOURS["blond"]), "smile": 1.5, "expression": "smiling",
        "mouth_open": 0.1, "background": "red", "background_lab": np.array(BACKGROUND_COLOURS["red"]),
    }  # fmt: skip
    return Measured(attributes=FaceAttributes(**{**values, **changes}), identity={"dlib": np.array([2.0, 0.0])})


def test_what_was_asked_leans_to_it() -> None:
    assert leaning(portrait(), "hair", "blond", opposite="black") > 0
    assert leaning(portrait(), "hair", "black", opposite="blond") < 0
    assert leaning(portrait(), "background", "red", opposite="green") > 0
    assert leaning(portrait(), "expression", "serious", opposite="smiling") == -1.5
    assert leaning(portrait(), "gender", "man", opposite="woman", womanly=np.array([1.0, 0])) == -2


def test_what_cannot_be_told_is_no_number() -> None:
    assert np.isnan(leaning(Measured(failure="no face"), "hair", "blond", opposite="black"))
    assert np.isnan(leaning(portrait(hair_lab=np.full(3, np.nan)), "hair", "blond", opposite="black"))
    assert np.isnan(leaning(portrait(), "gender", "man", opposite="woman"))
    assert np.isnan(obeys(Measured(), {"hair": "blond"}))


def test_words_as_asked() -> None:
    assert obeys(portrait(), {"hair": "blond", "background": "blue"}) == 0.5
    assert np.isnan(obeys(portrait(), {"gender": "woman"}))


def test_the_axis_of_gender_leaves_the_judged_person_out() -> None:
    embeddings = {name: np.array([float(k), 0.0]) for k, name in enumerate("abcdef")}
    genders = dict(zip("abcdef", ["woman"] * 3 + ["man"] * 3, strict=True))
    assert gender_axis(embeddings, genders, without="a") == pytest.approx([-2.5, 0])
    assert gender_axis(embeddings, {"a": "woman"}, without="b") is None
