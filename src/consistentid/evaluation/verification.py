"""Is it the same person? Verification scores of portraits against photos of many people."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from consistentid.evaluation.intervals import Estimate, subject_weights

FALSE_ACCEPT_RATES = (0.01, 0.001)


@dataclass(frozen=True)
class Roc:
    """Scores of a verification over all thresholds.

    Attributes:
        auc: probability that a genuine distance is smaller than an impostor one; ties count half.
        eer: equal error rate, where as many genuine pairs are refused as impostor pairs are accepted.
        tar: share of genuine pairs that are accepted, by the largest share of impostor pairs that may be.
    """

    auc: float
    eer: float
    tar: dict[float, float]


@dataclass(frozen=True)
class VerificationScores:
    """How well portraits are recognised.

    Attributes:
        portraits: how many were made.
        found: share in which a face was found; rank-1 and TAR count the rest as failures, AUC and EER leave it out.
        rank1: share of all portraits whose own person is the nearest of the gallery.
        auc: probability that a portrait is nearer to its own person than to another one.
        eer: equal error rate.
        tar: share of all portraits accepted as their person, by the share of wrong people accepted.
        own: mean distance to the own person's other photo.
        others: mean distance to other people's photos.
        impostors: how many pairs of a portrait and another person there are; no smaller false accept rate than
            1 / impostors can be told from 0.
    """

    portraits: int
    found: float
    rank1: float
    auc: float
    eer: float
    tar: dict[float, float]
    own: float
    others: float
    impostors: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distances of the portraits with a face (n) to the gallery (p).

    Attributes:
        distances: Euclidean; for embeddings of length 1 in the order of the cosine.
        person: row of the gallery that shows each portrait's person.
        portraits: how many there are, with those without a face.
    """

    distances: Float[np.ndarray, "n p"]
    person: Int[np.ndarray, " n"]
    portraits: int

    @property
    def is_own(self) -> Bool[np.ndarray, "n p"]:
        """Whether the gallery's photo shows the portrait's person."""
        return np.arange(self.distances.shape[1])[None] == self.person[:, None]


def pairs_of(
    embeddings: Sequence[Float[np.ndarray, " d"] | None],
    people: Int[np.ndarray, " n"],
    gallery: Float[np.ndarray, "p d"],
) -> Pairs:
    """Distances between every portrait with a face and every photo; see `verification_scores`."""
    if len(embeddings) != len(people):
        raise ValueError(f"{len(embeddings)} embeddings for {len(people)} portraits")
    found = [index for index, embedding in enumerate(embeddings) if embedding is not None]
    distances = np.zeros((0, len(gallery)))
    if found:
        distances = np.stack([np.linalg.norm(gallery - np.asarray(embeddings[index]), axis=1) for index in found])
    return Pairs(distances, np.asarray(people, int)[found], len(embeddings))


def verification_scores(
    embeddings: Sequence[Float[np.ndarray, " d"] | None],
    people: Int[np.ndarray, " n"],
    gallery: Float[np.ndarray, "p d"],
) -> VerificationScores:
    """Scores of n portraits against a gallery with one photo per person; NaN where there is nothing to compare.

    Args:
        embeddings: of each portrait; None where no face was found.
        people: row of the gallery that shows each portrait's person.
        gallery: embeddings of the photos.
    """
    pairs = pairs_of(embeddings, people, gallery)
    count, found = pairs.portraits, len(pairs.person)
    share = found / max(1, count)
    if not found or len(gallery) < 2:
        nothing = dict.fromkeys(FALSE_ACCEPT_RATES, float("nan"))
        return VerificationScores(count, share, 0.0, np.nan, np.nan, nothing, np.nan, np.nan, 0)
    own, others = pairs.distances[pairs.is_own], pairs.distances[~pairs.is_own]
    curve = roc(own, others)
    return VerificationScores(
        portraits=count,
        found=share,
        rank1=float(rank1_hits(pairs).sum() / count),
        auc=curve.auc,
        eer=curve.eer,
        tar={rate: accepted * share for rate, accepted in curve.tar.items()},
        own=float(own.mean()),
        others=float(others.mean()),
        impostors=others.size,
    )


def rank1_hits(pairs: Pairs) -> Bool[np.ndarray, " n"]:
    """Whether the own person is the nearest, for each portrait with a face; ties are no hits."""
    own = np.where(pairs.is_own, pairs.distances, np.inf).min(1)
    return own < np.where(pairs.is_own, np.inf, pairs.distances).min(1)


def roc(
    genuine: Float[np.ndarray, " g"],
    impostor: Float[np.ndarray, " i"],
    *,
    genuine_weights: Float[np.ndarray, " g"] | None = None,
    impostor_weights: Float[np.ndarray, " i"] | None = None,
) -> Roc:
    """AUC, EER and TAR from distances of genuine and impostor pairs, each pair counted by its weight."""
    from sklearn.metrics import auc, roc_curve

    labels = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    weights = np.r_[
        np.ones(len(genuine)) if genuine_weights is None else genuine_weights,
        np.ones(len(impostor)) if impostor_weights is None else impostor_weights,
    ]
    accepted_wrongly, accepted, _ = roc_curve(
        labels, -np.r_[genuine, impostor], sample_weight=weights, drop_intermediate=False
    )
    return Roc(
        auc=float(auc(accepted_wrongly, accepted)),
        eer=_equal_error_rate(accepted_wrongly, 1 - accepted),
        tar={rate: float(accepted[accepted_wrongly <= rate].max()) for rate in FALSE_ACCEPT_RATES},
    )


def _equal_error_rate(accepted_wrongly: np.ndarray, refused_wrongly: np.ndarray) -> float:
    """Where the two rates are equal, on the line between the two thresholds around that."""
    after = int(np.argmax(accepted_wrongly >= refused_wrongly))
    before = max(0, after - 1)
    gaps = (accepted_wrongly - refused_wrongly)[[before, after]]
    share = 0.0 if gaps[0] == gaps[1] else -gaps[0] / (gaps[1] - gaps[0])
    return float(accepted_wrongly[before] + share * (accepted_wrongly[after] - accepted_wrongly[before]))


def roc_estimates(pairs: Pairs, *, rounds: int = 300, seed: int = 0) -> dict[str, Estimate]:
    """AUC, EER and TAR with intervals by resampling people.

    A person drawn twice counts twice, as portrait and as impostor; a pair of a person with itself stays genuine.
    """
    is_own = pairs.is_own
    own, others = pairs.distances[is_own], pairs.distances[~is_own]
    rows, columns = np.nonzero(~is_own)
    share = len(pairs.person) / max(1, pairs.portraits)

    def scores(weights: np.ndarray) -> list[float]:
        of_portrait = weights[pairs.person]
        curve = roc(
            own,
            others,
            genuine_weights=of_portrait,
            impostor_weights=of_portrait[rows] * weights[columns],
        )
        return [curve.auc, curve.eer, *(value * share for value in curve.tar.values())]

    names = ["auc", "eer", *(f"tar@far={rate:g}" for rate in FALSE_ACCEPT_RATES)]
    people = pairs.distances.shape[1]
    if not len(own) or people < 2:
        return {name: Estimate(float("nan"), float("nan"), float("nan"), 0) for name in names}
    drawn = [
        scores(weights)
        for weights in subject_weights(people, rounds=rounds, seed=seed)
        if np.count_nonzero(weights[pairs.person]) and np.count_nonzero(weights) > 1
    ]
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    return {
        name: Estimate(value, float(low[k]), float(high[k]), len(set(pairs.person.tolist())))
        for k, (name, value) in enumerate(zip(names, scores(np.ones(people)), strict=True))
    }
