"""Do different seeds give different portraits? Spread among the portraits of one person and prompt."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from consistentid.evaluation.embedders import cosine


def pairwise_spread(embeddings: Sequence[Float[np.ndarray, " d"]]) -> float:
    """Mean of 1 - cosine over all pairs; NaN with fewer than two."""
    if len(embeddings) < 2:
        return float("nan")
    stacked = np.stack(embeddings)
    first, second = np.triu_indices(len(stacked), k=1)
    return float(1 - cosine(stacked[first], stacked[second]).mean())


def deviation(values: Sequence[Float[np.ndarray, " k"] | float]) -> float:
    """Standard deviation over the portraits, averaged over k numbers; NaN with fewer than two finite ones."""
    rows = np.array([np.atleast_1d(value) for value in values], np.float64)
    rows = rows[np.isfinite(rows).all(1)] if len(rows) else rows
    return float(rows.std(0).mean()) if len(rows) > 1 else float("nan")
