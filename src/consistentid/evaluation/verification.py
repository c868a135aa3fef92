"""Is it the same person? Verification scores of portraits against photos of many people."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class VerificationScores:
    """How well portraits are recognised.

    Attributes:
        portraits: how many were made.
        found: share in which a face was found; the other scores count the rest as failures where they can.
        rank1: share of all portraits whose own person is the nearest of the gallery.
        auc: probability that a portrait is nearer to its own person than to another one.
        own: mean distance to the own person's other photo.
        others: mean distance to other people's photos.
    """

    portraits: int
    found: float
    rank1: float
    auc: float
    own: float
    others: float


def verification_scores(
    embeddings: list[Float[np.ndarray, " d"] | None], people: Int[np.ndarray, " n"], gallery: Float[np.ndarray, "p d"]
) -> VerificationScores:
    """Scores of n portraits against a gallery with one photo per person.

    Args:
        embeddings: of each portrait; None where no face was found.
        people: row of the gallery that shows each portrait's person.
        gallery: embeddings of the photos.
    """
    if len(embeddings) != len(people):
        raise ValueError(f"{len(embeddings)} embeddings for {len(people)} portraits")
    found = [index for index, embedding in enumerate(embeddings) if embedding is not None]
    if not found or len(gallery) < 2:
        return VerificationScores(len(embeddings), len(found) / max(1, len(embeddings)), 0.0, 0.5, np.nan, np.nan)
    stacked = np.stack([embedding for embedding in embeddings if embedding is not None])
    distances = np.linalg.norm(stacked[:, None] - gallery[None], axis=2)
    person = np.asarray(people)[found]
    own = distances[np.arange(len(found)), person]
    is_other = np.arange(len(gallery))[None] != person[:, None]
    others = distances[is_other].reshape(len(found), -1)
    return VerificationScores(
        portraits=len(embeddings),
        found=len(found) / len(embeddings),
        rank1=float((own < others.min(1)).sum() / len(embeddings)),
        auc=area_under_curve(own, others.ravel()),
        own=float(own.mean()),
        others=float(others.mean()),
    )


def area_under_curve(genuine: Float[np.ndarray, " g"], impostor: Float[np.ndarray, " i"]) -> float:
    """Probability that a genuine distance is smaller than an impostor one; ties count half."""
    ordered = np.sort(impostor)
    smaller = np.searchsorted(ordered, genuine, side="left")
    not_larger = np.searchsorted(ordered, genuine, side="right")
    return float(1 - (smaller + not_larger).mean() / 2 / len(ordered))


def bootstrap_interval(
    values: Float[np.ndarray, " n"], *, seed: int = 0, rounds: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the mean; one value per person, so that people are the unit."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(rounds, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
