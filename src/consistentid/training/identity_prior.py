"""What an identity embedding says about latents, by linear regression: a teacher for the U-Net.

The noise loss pays little for likeness, because people differ less than poses and backgrounds do: after 65,000 samples
a U-Net drew everybody alike, while the linear map told 85 % of people never seen. Its predictions carry no noise, so
that few steps of following them make the U-Net listen to the identity tokens.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

_SHRINKAGE = 0.05  # ridge penalty, of the variance of a standardised embedding
_AMPLIFICATION = 1.4  # ridge regression draws people too near to the average
_DIRECTIONS = 80
_FLOOR = 0.3  # of the mean variance of a direction: what is added before dividing by variances


@dataclass(frozen=True)
class IdentityPrior:
    """Latents given an identity embedding: a normal distribution, its mean linear in the embedding where the face is.

    Attributes:
        centre: the average person's embedding.
        mean: the average person's latents, flat.
        slope: change of the latents with the embedding; zero outside the face.
        directions: orthonormal; along them people's expected latents differ, the first most.
        variances: of people along the directions.
        nuisance: eigenvectors of the latents' covariance given the embedding.
        nuisance_variances: its eigenvalues.
    """

    centre: Float[Tensor, " d"]
    mean: Float[Tensor, " p"]
    slope: Float[Tensor, "d p"]
    directions: Float[Tensor, "p k"]
    variances: Float[Tensor, " k"]
    nuisance: Float[Tensor, "p p"]
    nuisance_variances: Float[Tensor, " p"]

    @classmethod
    def fit(
        cls, identity: Float[Tensor, "n d"], latents: Float[Tensor, "n v c h w"], face: Float[Tensor, "h w"]
    ) -> Self:
        """Ridge regression.

        Args:
            identity: embeddings of n photos.
            latents: of v targets of each photo.
            face: how often each place shows the face, 0..1.
        """
        flat = latents.double().flatten(2)
        mean, centre, spread = (
            flat.mean((0, 1)),
            identity.double().mean(0),
            identity.double().std(0, correction=0).clamp(min=1e-6),
        )
        people = (identity.double() - centre) / spread
        penalty = _SHRINKAGE * len(people) * torch.eye(people.shape[1], dtype=people.dtype)
        slope = torch.linalg.solve(people.T @ people + penalty, people.T @ (flat.mean(1) - mean))
        weight = ((face.double() - 0.1) / 0.5).clamp(0, 1).expand(latents.shape[2:]).flatten()
        slope = _AMPLIFICATION * slope * weight / spread[:, None]
        expected = (identity.double() - centre) @ slope
        residual = (flat - mean - expected[:, None]).flatten(0, 1)
        nuisance_variances, nuisance = torch.linalg.eigh(residual.T @ residual / len(residual))
        _, sizes, directions = torch.linalg.svd(expected / len(expected) ** 0.5, full_matrices=False)
        count = min(_DIRECTIONS, people.shape[1])
        parts = (centre, mean, slope, directions[:count].T, sizes[:count].square())
        return cls(*(part.float().contiguous() for part in (*parts, nuisance, nuisance_variances.clamp(min=1e-4))))

    @property
    def _floored(self) -> Float[Tensor, " k"]:
        return self.variances + _FLOOR * self.variances.mean()

    @property
    def coordinates(self) -> Float[Tensor, "d k"]:
        """(embedding - centre) @ coordinates: where a person lies along the directions, in about unit variance."""
        return self.slope @ self.directions / self._floored.sqrt()

    def posterior(
        self, noisy: Float[Tensor, "b c h w"], alphas: Float[Tensor, " b"], identity: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b p"]:
        """Expected clean latents given noisy ones (sqrt(alpha) clean + sqrt(1 - alpha) noise) and the embedding."""
        mean = self.mean + (identity - self.centre) @ self.slope
        alpha = alphas[:, None]
        surprise = (noisy.flatten(1) - alpha.sqrt() * mean) @ self.nuisance
        gain = alpha.sqrt() * self.nuisance_variances / (alpha * self.nuisance_variances + 1 - alpha)
        return mean + (surprise * gain) @ self.nuisance.T

    def loss(
        self,
        clean: Float[Tensor, "b c h w"],
        noisy: Float[Tensor, "b c h w"],
        alphas: Float[Tensor, " b"],
        identity: Float[Tensor, "b d"],
    ) -> Float[Tensor, ""]:
        """Squared distance of predicted clean latents from the posterior, along the directions; 1 knows nobody."""
        difference = (clean.flatten(1) - self.posterior(noisy, alphas, identity)) @ self.directions
        weights = 1 / self._floored
        return (difference.square() * weights).sum(1).mean() / (self.variances * weights).sum()
