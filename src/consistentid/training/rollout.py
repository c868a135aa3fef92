"""Portraits that the U-Net has in mind on its own way down from noise.

The noise loss shows it noisy photos: whatever it would have got wrong before has been put right for it, so that it
needs the reference less than in generation. ReFL (arXiv:2304.05977) judges one-step predictions late on the model's own
way, and so does this: the way is walked without gradients, its last prediction has them.
"""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from consistentid.dataset.samples import Batch
from consistentid.training.blended import blended
from consistentid.training.compared import Compared, weighted_regions
from consistentid.training.conditions import Draws, Kept, RolloutDraws
from consistentid.training.losses import NoiseScheduler, clean_latents
from consistentid.training.prediction import TrainingModels, predict
from consistentid.training.step_config import StepConfig
from consistentid.training.told_losses import Judged, whole

ENDS = (0.08, 0.7)  # where ways end, shares of the noise schedule
_STEPS = 6


def rolled_out(models: TrainingModels, batch: Batch, draws: Draws, *, config: StepConfig) -> Judged | None:
    """Some samples of a batch, drawn from noise; None when there is nothing to judge in any."""
    assert draws.rollout is not None  # made where `config` asks for this
    chosen = _chosen(batch, draws.kept.of(batch), draws.rollout, count=config.rollouts)
    if not len(chosen):
        return None
    batch, kept = batch.rows(chosen), draws.kept.of(batch).rows(chosen)
    rollout, comparison, jitter = draws.rollout.rows(chosen), draws.comparison, draws.jitter[chosen]
    compared = Compared.choose(batch, kept, comparison and comparison.rows(chosen), count=config.compared)
    batch = blended(batch, compared, rollout.blends)
    weights = weighted_regions(compared, kept, strength=config.region_strength)
    noisy, timesteps = _way(models, batch, kept, rollout, weights)
    prediction = predict(models, batch, kept, noisy, timesteps, weights=weights)
    clean = clean_latents(models.scheduler, prediction, noisy, timesteps)
    return Judged(batch, kept, compared, jitter, clean, torch.ones_like(batch.stranger))


def _chosen(batch: Batch, kept: Kept, draws: RolloutDraws, *, count: int) -> Int[Tensor, " k"]:
    """Samples in which there is something to judge, in random order."""
    useful = whole(batch, kept)
    if batch.looks is not None:
        useful |= (batch.looks.known & kept.regions).any(1)
    order: Tensor = (draws.order * useful).argsort(descending=True)
    return order[: min(count, int(useful.sum()))]


@torch.no_grad()
def _way(
    models: TrainingModels, batch: Batch, kept: Kept, draws: RolloutDraws, weights: Float[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]:
    """Where a few steps from noise lead, and the timesteps there."""
    noisy, last = draws.noise, models.scheduler.config.num_train_timesteps - 1
    times = [((1 - (1 - draws.ends) * step / _STEPS) * last).round().long() for step in range(_STEPS + 1)]
    for now, then in pairwise(times):
        prediction = predict(models, batch, kept, noisy, now, weights=weights)
        noisy = less_noisy(models.scheduler, prediction, noisy, now, then)
    return noisy, times[-1]


def less_noisy(
    scheduler: NoiseScheduler,
    velocity: Float[Tensor, "b c h w"],
    noisy: Float[Tensor, "b c h w"],
    now: Int[Tensor, " b"],
    then: Int[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """A step of DDIM (arXiv:2010.02502) without noise; each sample has its own timesteps."""
    clean = clean_latents(scheduler, velocity, noisy, now)
    alphas = scheduler.alphas_cumprod.to(now.device)
    before, after = (alphas[times].view(-1, 1, 1, 1) for times in (now, then))
    noise = (noisy - before.sqrt() * clean) / (1 - before).sqrt()
    return after.sqrt() * clean + (1 - after).sqrt() * noise
