"""Does a portrait only copy its reference? Correlation of pose and expression over people."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from consistentid.evaluation.intervals import Estimate, statistic_estimate

FACTORS = ("roll", "yaw", "pitch", "smile", "mouth opening")


def head_pose(landmarks: Float[np.ndarray, "5 2"]) -> Float[np.ndarray, "3"]:
    """Roll, yaw and pitch of a head as the picture shows them.

    Roll is the angle of the eyes in degrees. Yaw and pitch are where the nose lies from the middle of the eyes, to the
    right and down along the face's own axes, in distances of the eyes: they grow with the turn of the head, and differ
    between people who look straight ahead, so that only correlations of them mean something.

    Args:
        landmarks: left eye, right eye, nose, …, px.
    """
    left, right, nose = np.asarray(landmarks[:3], np.float64)
    across = right - left
    distance = max(1e-6, float(np.linalg.norm(across)))
    x = across / distance
    y = np.array([-x[1], x[0]])
    offset = (nose - (left + right) / 2) / distance
    return np.array([np.degrees(np.arctan2(across[1], across[0])), offset @ x, offset @ y])


def copied(
    references: Mapping[str, Float[np.ndarray, " k"]],
    portraits: Mapping[str, Float[np.ndarray, " k"]],
    *,
    seed: int = 0,
) -> list[Estimate]:
    """Pearson correlation of k numbers between reference and portraits over people; 1 is a copy, 0 is free.

    Args:
        references: of every person.
        portraits: mean over each person's portraits.
        seed: of the bootstrap.
    """
    shared = sorted(references.keys() & portraits.keys())
    if not shared:
        return []
    rows = np.array([np.stack([references[name], portraits[name]], -1) for name in shared])  # (s, k, 2)
    return [
        statistic_estimate(values[np.isfinite(values).all(1)], correlation, seed=seed) for values in rows.swapaxes(0, 1)
    ]


def correlation(rows: Float[np.ndarray, "*rounds s 2"]) -> Float[np.ndarray, "*rounds"]:
    """Pearson correlation of two columns; NaN when one of them does not vary."""
    centred = rows - rows.mean(-2, keepdims=True)
    spread = (centred**2).sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (centred[..., 0] * centred[..., 1]).sum(-1) / np.sqrt(spread[..., 0] * spread[..., 1])
