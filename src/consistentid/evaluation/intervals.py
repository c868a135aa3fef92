"""Intervals and comparisons in which people, not pictures, are the unit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

ROUNDS = 2000

_PERMUTATIONS = 99_999  # the least p is then 2e-5, which some hundred comparisons leave below 0.05


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the number.
        low, high: percentile bootstrap over people; NaN with fewer than two of them.
        subjects: how many people stand behind it.
    """

    value: float
    low: float
    high: float
    subjects: int


@dataclass(frozen=True)
class PairedDifference:
    """Two results of the same people.

    Attributes:
        difference: mean of second - first.
        low, high: percentile bootstrap over people.
        p: of a two-sided permutation test that exchanges the two results of a person.
        subjects: people with both results.
        left_out: people who have only one of them.
    """

    difference: float
    low: float
    high: float
    p: float
    subjects: int
    left_out: int


def by_subject(values: Sequence[float], subjects: Sequence[str]) -> dict[str, float]:
    """Mean of every person's values, NaN left out; people in the order of their names, so that no order matters."""
    if len(values) != len(subjects):
        raise ValueError(f"{len(values)} values of {len(subjects)} subjects")
    kept: dict[str, list[float]] = {}
    for subject, value in zip(subjects, values, strict=True):
        if np.isfinite(value):
            kept.setdefault(subject, []).append(float(value))
    return {subject: float(np.mean(sorted(kept[subject]))) for subject in sorted(kept)}


def mean_estimate(means: Mapping[str, float], *, rounds: int = ROUNDS, seed: int = 0) -> Estimate:
    """Mean over people, every person counted once, with its interval.

    Args:
        means: one value per person, as `by_subject` gives them.
        rounds: bootstrap samples.
        seed: of the bootstrap.
    """
    return statistic_estimate(np.array(list(means.values()))[:, None], column_mean, rounds=rounds, seed=seed)


def statistic_estimate(
    rows: Float[np.ndarray, "s k"],
    statistic: Callable[[Float[np.ndarray, "*rounds s k"]], Float[np.ndarray, "*rounds"]],
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Estimate:
    """A statistic of one row per person, with its percentile interval.

    Args:
        rows: what is known of each of s people.
        statistic: from rows, or a stack of resampled rows, to numbers.
        rounds: bootstrap samples.
        seed: of the bootstrap.
    """
    nothing = float("nan")
    if len(rows) == 0:
        return Estimate(nothing, nothing, nothing, 0)
    value = float(statistic(rows))
    if len(rows) < 2:
        return Estimate(value, nothing, nothing, len(rows))
    drawn = statistic(rows[np.random.default_rng(seed).integers(len(rows), size=(rounds, len(rows)))])
    drawn = drawn[np.isfinite(drawn)]  # a correlation of equal rows is none
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn.size else (nothing, nothing)
    return Estimate(value, float(low), float(high), len(rows))


def column_mean(rows: Float[np.ndarray, "*rounds s 1"]) -> Float[np.ndarray, "*rounds"]:
    """Mean of the only column."""
    return rows[..., 0].mean(-1)


def subject_weights(people: int, *, rounds: int, seed: int) -> Float[np.ndarray, "r p"]:
    """How often each person is drawn, in every round of a bootstrap."""
    return np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=rounds).astype(float)


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], *, rounds: int = 9999, seed: int = 0
) -> PairedDifference:
    """Is the second result larger, over the people who have both?

    Args:
        first: one value per person, as `by_subject` gives them.
        second: likewise.
        rounds: samples of the bootstrap.
        seed: of the bootstrap, and of the permutations where there are too many to try all.
    """
    from scipy.stats import permutation_test

    shared = sorted(first.keys() & second.keys())
    left_out = len(first.keys() | second.keys()) - len(shared)
    differences = np.array([second[name] - first[name] for name in shared])
    estimate = statistic_estimate(differences[:, None], column_mean, rounds=rounds, seed=seed)
    if len(shared) < 2:
        return PairedDifference(estimate.value, estimate.low, estimate.high, float("nan"), len(shared), left_out)
    test = permutation_test(
        (differences, np.zeros_like(differences)),
        lambda second, first, axis: (second - first).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    return PairedDifference(estimate.value, estimate.low, estimate.high, float(test.pvalue), len(shared), left_out)
