"""Distances between sets of pictures, from features of our own extractors, by torchmetrics."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

KID_SUBSETS = 50
KID_SUBSET_SIZE = 50  # at most; all with fewer pictures
FEW = 2048  # pictures; below it FID is biased upwards so much that only sets of one size can be compared


@dataclass(frozen=True)
class SetDistance:
    """How far a set of pictures is from the real ones.

    Attributes:
        fid: Fréchet distance of two Gaussians. It falls with the number of pictures, other things equal.
        kid: squared maximum mean discrepancy with a cubic kernel, the mean over random subsets; unbiased.
        kid_deviation: over the subsets.
        pictures: the smaller of the two numbers of pictures.
    """

    fid: float
    kid: float
    kid_deviation: float
    pictures: int


class _Features(torch.nn.Module):
    """Hands features through where torchmetrics would extract them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def set_distance(real: Float[np.ndarray, "n d"], made: Float[np.ndarray, "m d"], *, seed: int = 0) -> SetDistance:
    """FID and KID of two sets of features; NaN with fewer than two pictures in either.

    Args:
        real: of photos.
        made: of portraits.
        seed: of KID's subsets.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    count = min(len(real), len(made))
    if count < 2:
        return SetDistance(float("nan"), float("nan"), float("nan"), count)
    extractor = _Features(real.shape[1])
    frechet = FrechetInceptionDistance(feature=extractor).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(feature=extractor, subsets=KID_SUBSETS, subset_size=min(KID_SUBSET_SIZE, count))
    for metric in (frechet, kernel):
        metric.update(torch.from_numpy(np.asarray(real, np.float64)), real=True)
        metric.update(torch.from_numpy(np.asarray(made, np.float64)), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kid, spread = kernel.compute()
    return SetDistance(float(frechet.compute()), float(kid), float(spread), count)
