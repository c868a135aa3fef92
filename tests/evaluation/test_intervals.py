"""Intervals whose unit is a person."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from consistentid.evaluation.copying import copied, correlation, head_pose
from consistentid.evaluation.intervals import by_subject, mean_estimate, paired_difference


def test_people_count_once_however_many_portraits_they_have() -> None:
    means = by_subject([1, 1, 1, 0, np.nan], ["a", "a", "a", "b", "c"])
    assert means == {"a": 1, "b": 0}
    assert mean_estimate(means).value == 0.5


def test_no_order_matters() -> None:
    rng = np.random.default_rng(0)
    values, subjects = rng.random(60), [f"{k % 9}" for k in range(60)]
    order = rng.permutation(60)
    once = mean_estimate(by_subject(values, subjects))
    again = mean_estimate(by_subject(values[order], [subjects[k] for k in order]))
    assert once == again


def test_an_interval_holds_the_mean_and_shrinks() -> None:
    values = {str(k): float(v) for k, v in enumerate(np.random.default_rng(1).random(400))}
    many, few = mean_estimate(values), mean_estimate(dict(list(values.items())[:25]))
    assert many.low < many.value < many.high
    assert many.high - many.low < few.high - few.low


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(200):
        estimate = mean_estimate({str(k): float(v) for k, v in enumerate(rng.normal(size=40))}, rounds=400)
        inside.append(estimate.low < 0 < estimate.high)
    assert 0.88 < np.mean(inside) < 0.99


def test_one_person_has_no_interval_and_nobody_no_value() -> None:
    assert np.isnan(mean_estimate({"a": 1.0}).low)
    assert mean_estimate({}).subjects == 0


def test_a_paired_test_agrees_with_students() -> None:
    rng = np.random.default_rng(3)
    first = {str(k): float(v) for k, v in enumerate(rng.normal(size=30))}
    second = {name: value + 0.2 + 0.5 * float(rng.normal()) for name, value in first.items()}
    found = paired_difference(first, second | {"only here": 9.0})
    expected = ttest_rel(list(second.values()), list(first.values())).pvalue
    assert found.p == pytest.approx(expected, rel=0.25)
    assert (found.subjects, found.left_out) == (30, 1)
    assert found.low < found.difference < found.high


def test_a_paired_test_of_three_people_is_exact() -> None:
    found = paired_difference({"a": 0, "b": 0, "c": 0}, {"a": 1, "b": 2, "c": 3})
    assert found.p == pytest.approx(2 / 8)


def test_equal_results_do_not_differ() -> None:
    found = paired_difference({"a": 1, "b": 2}, {"a": 1, "b": 2})
    assert (found.difference, found.p) == (0, 1)


def test_a_copy_correlates_and_constants_do_not() -> None:
    people = {str(k): np.array([float(k), 1.0]) for k in range(8)}
    same, constant = copied(people, {name: values * 2 for name, values in people.items()})
    assert same.value == pytest.approx(1)
    assert np.isnan(constant.value)


def test_correlation_is_numpys() -> None:
    rows = np.random.default_rng(4).normal(size=(3, 20, 2))
    assert correlation(rows) == pytest.approx([np.corrcoef(each.T)[0, 1] for each in rows])


def test_roll_is_an_angle_and_does_not_change_the_rest() -> None:
    face = np.array([[0, 0], [10, 0], [6, 8], [2, 12], [8, 12]], float)
    angle = np.radians(20)
    turned = face @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * 3 + 5
    assert head_pose(face) == pytest.approx([0, 0.1, 0.8])
    assert head_pose(turned) == pytest.approx([20, 0.1, 0.8])
