"""The two losses of the paper and the weights of the first."""

from dataclasses import dataclass, fields
from typing import Any, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.identity.attention_maps import outside_less_inside

LOCALISATION_WEIGHT = 0.01  # section 3.3 of arXiv:2404.16771
_SHARE = 0.4  # of the attention in its region that a region's token shall have; the words around it keep the rest
_LEAST = 1e-6


class NoiseScheduler(Protocol):
    """What training asks of diffusers' DDPM and DDIM schedulers."""

    alphas_cumprod: Tensor
    config: Any

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...  # noqa: D102

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class Losses:
    """Scalars of one step; `total` is minimised, the others are None when they are switched off."""

    total: Tensor
    noise: Tensor
    localisation: Tensor | None = None
    share: Tensor | None = None
    prior: Tensor | None = None
    contrast: Tensor | None = None
    omission: Tensor | None = None
    spill: Tensor | None = None
    identity: Tensor | None = None
    regions: Tensor | None = None
    drawn_identity: Tensor | None = None
    drawn_regions: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """For the loop and its log: `loss` and the parts that exist."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return {"loss": self.total, **{name: value for name, value in parts.items() if value is not None}}


def clean_latents(
    scheduler: NoiseScheduler,
    velocity: Float[Tensor, "b c h w"],
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """What a predicted velocity says of the clean latents (arXiv:2202.00512, appendix D)."""
    alpha = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity.float()


def noise_losses(
    prediction: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """Mean squared error of each sample over the pixels of the mask (all ones, or the person)."""
    squared = (prediction.float() - target.float()).square().mean(1, keepdim=True)
    return (squared * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)


def signal_to_noise(scheduler: NoiseScheduler, timesteps: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """alpha-bar / (1 - alpha-bar) at each timestep; 0 at the last one with zero terminal SNR."""
    kept: Tensor = scheduler.alphas_cumprod[timesteps.cpu()].to(timesteps.device)
    return kept / (1 - kept)


def min_snr_weights(snr: Float[Tensor, " b"], *, prediction_type: str, gamma: float = 5.0) -> Float[Tensor, " b"]:
    """Min-SNR weights (arXiv:2303.09556), for noise or velocity prediction."""
    capped = snr.clamp(max=gamma)
    return capped / (snr + 1) if prediction_type == "v_prediction" else capped / snr.clamp(min=1e-8)


def localisation_loss(
    maps: Float[Tensor, "b h q n"], masks: Float[Tensor, "b n q"], valid: Bool[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    """Attention of each region's token outside its region minus inside, of one layer, for each sample.

    Samples without regions count as zero.

    Args:
        maps: attention probabilities of the region tokens, over heads and pixels.
        masks: region masks at the same resolution, 0..1.
        valid: which regions exist.
    """
    per_region = outside_less_inside(maps, masks) * valid[:, None]
    return (per_region.sum(-1) / valid.sum(-1).clamp(min=1)[:, None]).mean(1)


def share_loss(
    maps: Float[Tensor, "b h q n"], masks: Float[Tensor, "b n q"], valid: Bool[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    """How far each region's token is from getting its share of the attention in its region, of one layer.

    Eq. 1 divides maps by their maximum: a token that gets a hundredth of the attention satisfies it as well as one that
    gets half, but cannot say what its region looks like.

    Args:
        maps: see `localisation_loss`.
        masks: region masks at the same resolution, 0..1.
        valid: which regions exist.
    """
    inside = (maps.float().mean(1).transpose(1, 2) * masks).sum(2) / masks.sum(2).clamp(min=_LEAST)
    missing = (_SHARE / inside.clamp(min=_LEAST)).log().clamp(min=0) * valid
    return missing.sum(1) / valid.sum(1).clamp(min=1)
