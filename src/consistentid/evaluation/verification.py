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


def roc(genuine: Float[np.ndarray, " g"], impostor: Float[np.ndarray, " i"]) -> Roc:
    """AUC, EER and TAR from distances of genuine and impostor pairs."""
    weights = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    rates = _rates(np.r_[genuine, impostor], weights[None], 1 - weights[None])
    scores = _scores(*rates)[0]
    return Roc(float(scores[0]), float(scores[1]), dict(zip(FALSE_ACCEPT_RATES, map(float, scores[2:]), strict=True)))


def _rates(
    distances: Float[np.ndarray, " n"], genuine: Float[np.ndarray, "r n"], impostor: Float[np.ndarray, "r n"]
) -> tuple[Float[np.ndarray, "r t"], Float[np.ndarray, "r t"]]:
    """Shares of genuine and impostor pairs accepted at every threshold, from none to all.

    Args:
        distances: of the pairs.
        genuine: how often each pair counts as a genuine one, for r rounds.
        impostor: likewise as an impostor.
    """
    order = np.argsort(distances, kind="stable")
    last = np.r_[np.nonzero(np.diff(distances[order]))[0], len(distances) - 1]  # equal distances are accepted together
    accepted = []
    for weights in (genuine, impostor):
        sums = np.cumsum(weights[:, order], axis=1)[:, last]
        accepted.append(np.c_[np.zeros(len(sums)), sums / sums[:, -1:]])
    return accepted[0], accepted[1]


def _scores(accepted: Float[np.ndarray, "r t"], accepted_wrongly: Float[np.ndarray, "r t"]) -> Float[np.ndarray, "r k"]:
    """AUC, EER and the TAR of each of `FALSE_ACCEPT_RATES`, for every round."""
    auc = np.trapezoid(accepted, accepted_wrongly, axis=1)
    gaps = accepted_wrongly - (1 - accepted)  # the equal error rate lies on the line between the thresholds around 0
    after = np.argmax(gaps >= 0, axis=1)[:, None]
    before = np.maximum(0, after - 1)
    low, high = (np.take_along_axis(gaps, place, 1) for place in (before, after))
    wrong, more = (np.take_along_axis(accepted_wrongly, place, 1) for place in (before, after))
    share = np.divide(-low, high - low, out=np.zeros_like(low), where=high > low)
    eer = (wrong + share * (more - wrong))[:, 0]
    tar = [np.where(accepted_wrongly <= rate + 1e-12, accepted, 0).max(1) for rate in FALSE_ACCEPT_RATES]
    return np.stack([auc, eer, *tar], axis=1)


def roc_estimates(pairs: Pairs, *, rounds: int = 500, seed: int = 0) -> dict[str, Estimate]:
    """AUC, EER and TAR with intervals by resampling people.

    A person drawn twice counts twice, as portrait and as impostor; a pair of a person with itself stays genuine.
    """
    names = ["auc", "eer", *(f"tar@far={rate:g}" for rate in FALSE_ACCEPT_RATES)]
    people, nothing = pairs.distances.shape[1], float("nan")
    if not len(pairs.person) or people < 2:
        return dict.fromkeys(names, Estimate(nothing, nothing, nothing, 0))
    value = _weighted_scores(pairs, np.ones((1, people)))[0]
    weights = subject_weights(people, rounds=rounds, seed=seed)
    drawn = np.concatenate([_weighted_scores(pairs, part) for part in np.array_split(weights, max(1, rounds // 50))])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0) if len(drawn) else np.full((2, len(names)), nothing)
    subjects = len(set(pairs.person.tolist()))
    return {name: Estimate(float(value[k]), float(low[k]), float(high[k]), subjects) for k, name in enumerate(names)}


def _weighted_scores(pairs: Pairs, weights: Float[np.ndarray, "r p"]) -> Float[np.ndarray, "r k"]:
    """Scores with every person counted so often; rounds without genuine or impostor pairs are left out."""
    is_own = pairs.is_own.ravel()
    portrait = np.repeat(weights[:, pairs.person], pairs.distances.shape[1], axis=1)
    impostor = portrait * np.tile(weights, (1, len(pairs.person))) * ~is_own
    genuine = portrait * is_own
    possible = (genuine.sum(1) > 0) & (impostor.sum(1) > 0)
    scores = _scores(*_rates(pairs.distances.ravel(), genuine[possible], impostor[possible]))
    scores[:, 2:] *= len(pairs.person) / pairs.portraits  # no face is no acceptance
    return scores
