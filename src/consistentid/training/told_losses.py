"""Losses on the portrait that the U-Net has in mind, of samples that are told whom to draw: prior and recogniser."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.dataset.samples import Batch, Told
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.conditions import Draws, Kept
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import NoiseScheduler
from consistentid.training.recognition import Recognition
from consistentid.training.step_config import StepConfig
from consistentid.training.teacher import Teacher

_COMPARED = {"face": 0.7, "ears": 1.5, "eyes": 1.9, "nose": 0.8, "mouth": 1.1}  # how readily
_OTHERS = 0.5  # how much more readily regions of somebody else are
_VISIBLE = 0.98  # share of the noise schedule from which on the noisy latents show nothing


@dataclass(frozen=True)
class Seen:
    """What prior and recogniser see of a step: predicted clean latents, of which noisy ones, and what was told."""

    batch: Batch
    told: Told
    kept: Kept
    draws: Draws
    clean: Float[Tensor, "b c h w"]
    noisy: Float[Tensor, "b c h w"]
    timesteps: Int[Tensor, " b"]


def taught(
    seen: Seen, prior: IdentityPrior | None, scheduler: NoiseScheduler, *, config: StepConfig
) -> dict[str, Tensor]:
    """What the identity prior says."""
    if prior is None or not config.is_taught:
        return {}
    stranger, twins, somebody = seen.batch.stranger, seen.batch.twins, seen.kept.somebody
    teacher = Teacher(prior, scheduler, seen.clean, seen.noisy, seen.timesteps, seen.kept.told(seen.told))
    least = torch.where(stranger, config.stranger_from, config.prior_from)
    follows = somebody & (seen.timesteps >= least * scheduler.config.num_train_timesteps)
    contrasts = somebody & somebody[twins] & stranger
    return {"prior": teacher.follow(follows), "contrast": teacher.contrast(contrasts, twins)}


def recognised(
    seen: Seen, recognition: Recognition | None, scheduler: NoiseScheduler, *, config: StepConfig
) -> dict[str, Tensor]:
    """What the recogniser says, where something can be seen and is not the face of a stranger's target.

    Of whom it sees, it is asked where all regions are the person's own.
    """
    if recognition is None or not config.is_recognised:
        return {}
    share = seen.timesteps / scheduler.config.num_train_timesteps
    visible = (share < _VISIBLE) & (~seen.batch.stranger | (share >= config.stranger_from))
    whole = visible & seen.kept.identity & ~seen.told.mixed.any(1) & (config.identity_weight > 0)
    regional, region = _compared(seen)
    regional = regional & visible & (config.regions_weight > 0)
    rows = whole | regional
    pictures, jitter = recognition.pictures(seen.clean[rows]), seen.draws.jitter
    identity = recognition.distance(pictures[whole[rows]], seen.told.identity[whole], jitter[whole])
    if seen.batch.looks is None or not config.regions_weight:
        return {"identity": identity}
    looks, faces = seen.batch.looks.rows(regional), pictures[regional[rows]]
    regions = recognition.region_distance(faces, looks, region[regional], jitter[regional])
    return {"identity": identity, "regions": regions}


def _compared(seen: Seen) -> tuple[Bool[Tensor, " b"], Int[Tensor, " b"]]:
    """Which samples are compared in a region, and in which: rather in somebody else's."""
    if seen.batch.looks is None:
        return torch.zeros_like(seen.batch.stranger), torch.zeros_like(seen.timesteps)
    allowed = seen.batch.looks.known & seen.kept.regions
    readily = torch.tensor([_COMPARED[name] for name in REGION_NAMES], device=allowed.device)
    order = (1 + seen.draws.region * readily + _OTHERS * seen.told.mixed) * allowed
    return allowed.any(1), order.argmax(1)
