"""The identity prior beside the U-Net: what its predictions should have been."""

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.dataset.samples import Told
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import NoiseScheduler


@dataclass(frozen=True)
class Teacher:
    """The identity prior beside the clean latents that the U-Net predicted of noisy ones."""

    prior: IdentityPrior
    scheduler: NoiseScheduler
    clean: Float[Tensor, "b c h w"]
    noisy: Float[Tensor, "b c h w"]
    timesteps: Int[Tensor, " b"]
    told: Told

    def follow(self, rows: Bool[Tensor, " b"]) -> Tensor:
        """How far the predicted clean latents of the chosen samples are from what the prior says of them."""
        if not rows.any():
            return self.clean.sum() * 0
        return self.prior.loss(self.clean[rows], self.noisy[rows], self._alphas[rows], self.told.rows(rows))

    def contrast(self, rows: Bool[Tensor, " b"], twins: Int[Tensor, " b"]) -> Tensor:
        """The same for the difference between the chosen samples and those that share their noisy latents."""
        if not rows.any():
            return self.clean.sum() * 0
        difference = self.clean[rows] - self.clean[twins[rows]]
        told, instead = self.told.rows(rows), self.told.rows(twins[rows])
        return self.prior.contrast(difference, self.noisy[rows], self._alphas[rows], told, instead)

    @cached_property
    def _alphas(self) -> Float[Tensor, " b"]:
        return self.scheduler.alphas_cumprod.to(self.timesteps.device)[self.timesteps]
