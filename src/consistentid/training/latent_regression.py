"""Latents of a person whom words describe, by linear regression on identity embedding and words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from consistentid.dataset.samples import Told

_SHRINKAGE = 0.05  # ridge penalty, of the variance of a standardised embedding
_AMPLIFICATION = 1.4  # ridge regression draws people too near to the average


@dataclass(frozen=True)
class LatentRegression:
    """Expected latents. What words change is regressed first, so that the embedding does not decide it instead.

    Attributes:
        centre: the average person's embedding.
        mean: the average latents, flat.
        slope: change of the latents with the embedding, words being equal; zero outside the face.
        effects: change of the latents with each of k words.
        choices: number of words of each attribute; their sum is k.
        usual: how often each word holds.
        habits: how that changes with the embedding; stands in for attributes of which nothing is said, but not for
            those that belong to the photo and not to the person.
        places: share of each latent value that belongs to a region, 0..1.
    """

    centre: Float[Tensor, " d"]
    mean: Float[Tensor, " p"]
    slope: Float[Tensor, "d p"]
    effects: Float[Tensor, "k p"]
    choices: tuple[int, ...]
    usual: Float[Tensor, " k"]
    habits: Float[Tensor, "d k"]
    places: Float[Tensor, "n p"]

    @classmethod
    def fit(
        cls,
        identity: Float[Tensor, "n d"],
        latents: Float[Tensor, "n v c h w"],
        words: Int[Tensor, "n v a"],
        *,
        choices: Sequence[int],
        habitual: Sequence[bool],
        face: Float[Tensor, "h w"],
        places: Float[Tensor, "r h w"],
    ) -> Self:
        """Ridge regressions.

        Args:
            identity: embeddings of n photos.
            latents: of v targets of each photo.
            words: as in `Told`, of each target.
            choices: number of words of each attribute.
            habitual: whether the embedding may say which word of an attribute is likely.
            face: how much the embedding may decide in each place, 0..1.
            places: share of each place that belongs to a region, 0..1.
        """
        flat, held, people = latents.double().flatten(2), one_hot(words, choices).double(), identity.double()
        mean, usual, centre = flat.mean((0, 1)), held.mean((0, 1)), people.mean(0)
        effects = ridge((held - usual).flatten(0, 1), (flat - mean).flatten(0, 1), 1e-3)
        rest = (flat - mean - (held - usual) @ effects).mean(1)
        slope = _AMPLIFICATION * ridge(people - centre, rest, _SHRINKAGE) * everywhere(face, latents.shape[2])
        leaning = torch.tensor(habitual).repeat_interleave(torch.tensor(choices))
        habits = _AMPLIFICATION * ridge(people - centre, held.mean(1) - usual, _SHRINKAGE) * leaning
        centre, mean, slope, effects, usual, habits = (x.float() for x in (centre, mean, slope, effects, usual, habits))
        return cls(centre, mean, slope, effects, tuple(choices), usual, habits, everywhere(places, latents.shape[2]))

    @property
    def total_slope(self) -> Float[Tensor, "d p"]:
        """Change of the latents with the embedding when nothing is said."""
        return self.slope + self.habits @ self.effects

    def expected(self, told: Told) -> Float[Tensor, "b p"]:
        """Expected latents, the regions' places being those of their own people."""
        person = told.identity - self.centre
        moved = sum(
            ((told.regions[:, index] - told.identity) @ self.slope) * place for index, place in enumerate(self.places)
        )
        return self.mean + person @ self.slope + moved + self.worded(told)

    def worded(self, told: Told) -> Float[Tensor, "b p"]:
        """The part of the expected latents that words change, said or usual."""
        return (self._shares(told.identity - self.centre, told.words) - self.usual) @ self.effects

    def _shares(self, person: Float[Tensor, "b d"], words: Int[Tensor, "b a"]) -> Float[Tensor, "b k"]:
        said = (words > 0).repeat_interleave(torch.tensor(self.choices), dim=1)
        return torch.where(said, one_hot(words, self.choices), self.usual + person @ self.habits)


def one_hot(words: Int[Tensor, "*n a"], choices: Sequence[int]) -> Float[Tensor, "*n k"]:
    """1 for each word that holds, attribute after attribute."""
    columns = [F.one_hot(words[..., index].long(), count + 1)[..., 1:] for index, count in enumerate(choices)]
    return torch.cat(columns, -1).float()


def everywhere(maps: Float[Tensor, "*n h w"], channels: int) -> Float[Tensor, "*n p"]:
    """The same maps for every channel of the latents, flat."""
    return maps.unsqueeze(-3).expand(*maps.shape[:-2], channels, *maps.shape[-2:]).flatten(-3)


def ridge(inputs: Tensor, outputs: Tensor, penalty: float) -> Tensor:
    """Least squares of centred inputs, with a penalty in units of each input's variance."""
    variances = inputs.square().mean(0).clamp(min=1e-12)
    return torch.linalg.solve(inputs.T @ inputs + penalty * len(inputs) * variances.diag(), inputs.T @ outputs)
