"""One training step: Batch -> Losses. Pure: everything random is in the draws."""

from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.attention_maps import AttentionRecorder
from consistentid.training.compared import Compared, weighted_regions
from consistentid.training.conditions import ComparisonDraws, Draws, Kept, RolloutDraws, keep
from consistentid.training.losses import (
    Losses,
    NoiseScheduler,
    clean_latents,
    localisation_loss,
    min_snr_weights,
    noise_losses,
    share_loss,
    signal_to_noise,
)
from consistentid.training.omission import omission_losses
from consistentid.training.prediction import TrainingModels, predict
from consistentid.training.rollout import ENDS, rolled_out
from consistentid.training.step_config import StepConfig
from consistentid.training.told_losses import Judged, Seen, recognised, taught, visible

_FACE = REGION_NAMES.index("face")
_DETAILS = [REGION_NAMES.index(name) for name in ("eyes", "nose", "mouth")]


def training_step(models: TrainingModels, batch: Batch, draws: Draws, *, config: StepConfig) -> Losses:
    """Noise loss and eq. 1 on the samples that show their own reference; prior and recogniser see strangers, too."""
    own, twins = ~batch.stranger, batch.twins
    timesteps, kept = draws.timesteps[twins], draws.kept.of(batch)
    noisy, target = noised(models.scheduler, batch.latents, timesteps, draws.noise[twins])
    models.adapter.set_scale(kept.scale)
    compared = Compared.choose(batch, kept, draws.comparison, count=config.compared) if config.regions_weight else None
    recorder = models.recorder if config.looks_at_attention and kept.fused else None
    token_weights = weighted_regions(compared, kept, strength=config.region_strength)
    with recorder.recording() if recorder else nullcontext():
        prediction = predict(models, batch, kept, noisy, timesteps, weights=token_weights)
    weights = _noise_weights(models.scheduler, timesteps, config=config)
    squared = noise_losses(prediction, target, _mask(batch, draws.everywhere, config=config))
    noise = (weights * squared)[own].mean()
    parts: dict[str, Tensor] = {}
    if recorder:
        parts |= attention_losses(recorder, batch, kept.regions & own[:, None])
    if batch.told is not None and kept.fused:
        clean = clean_latents(models.scheduler, prediction, noisy, timesteps)
        seen = Seen(batch, batch.told, kept, clean, noisy, timesteps)
        parts |= taught(seen, models.prior, models.scheduler, config=config)
        if draws.omission is not None:
            parts |= omission_losses(models, seen, draws.omission, config=config, weights=token_weights)
        shown = visible(batch, timesteps, models.scheduler, config=config)
        parts |= _recognised(models, Judged(batch, kept, compared, draws.jitter, clean, shown), draws, config=config)
    parts = {name: loss for name, loss in parts.items() if getattr(config, f"{name}_weight")}
    total = noise + sum(getattr(config, f"{name}_weight") * loss for name, loss in parts.items())
    return Losses(total, noise, **parts)


def _recognised(models: TrainingModels, predicted: Judged, draws: Draws, *, config: StepConfig) -> dict[str, Tensor]:
    """What the recogniser says of what is predicted of noisy targets, and of portraits drawn from noise."""
    if models.recognition is None:
        return {}
    parts: dict[str, Tensor] = {}
    if config.identity_weight or config.regions_weight:
        parts |= recognised(predicted, models.recognition)
    if config.draws_portraits and (drawn := rolled_out(models, predicted.batch, draws, config=config)):
        parts |= {f"drawn_{name}": loss for name, loss in recognised(drawn, models.recognition).items()}
    return parts


def draw_step(
    shape: tuple[int, ...], scheduler: NoiseScheduler, generator: torch.Generator, *, config: StepConfig
) -> Draws:
    """Everything random of a step on latents of a shape (b, c, h, w)."""
    steps = scheduler.config.num_train_timesteps
    timesteps = (spread(shape[0], generator) ** config.timestep_power * steps).long().clamp(max=steps - 1)
    noise = torch.randn(shape, generator=generator)
    kept = Kept.draw(shape[0], len(REGION_NAMES), generator, config=config)
    everywhere = keep(shape[0], config.foreground, generator)
    jitter = torch.randn(shape[0], 3, generator=generator)
    comparison = _draw_comparison(kept.regions.shape, generator, config=config) if config.compares_regions else None
    rollout = _draw_rollout(noise, generator, config=config) if config.draws_portraits else None
    omission = torch.rand(kept.regions.shape, generator=generator) if config.omissions else None
    return Draws(noise, timesteps, kept, everywhere, jitter, comparison, omission, rollout)


def _draw_comparison(shape: torch.Size, generator: torch.Generator, *, config: StepConfig) -> ComparisonDraws:
    order, outlined = (torch.rand(shape, generator=generator) for _ in range(2))
    return ComparisonDraws(order, outlined < config.outlined, ~keep(shape[0], config.exaggerated, generator))


def _draw_rollout(like: Float[Tensor, "b c h w"], generator: torch.Generator, *, config: StepConfig) -> RolloutDraws:
    order, ends = (torch.rand(len(like), generator=generator) for _ in range(2))
    noise = torch.randn(like.shape, generator=generator)
    blends = torch.rand(len(like), generator=generator) * ~keep(len(like), config.blended, generator)
    return RolloutDraws(order, noise, ENDS[0] + (ENDS[1] - ENDS[0]) * ends, blends)


def spread(count: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Uniform in 0..1, one in each of `count` equal parts: less noise in the loss than independent draws."""
    return (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count


def noised(
    scheduler: NoiseScheduler,
    latents: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Noisy latents, and what the U-Net is to predict."""
    noisy = scheduler.add_noise(latents, noise, timesteps)
    if scheduler.config.prediction_type == "v_prediction":
        return noisy, scheduler.get_velocity(latents, noise, timesteps)
    return noisy, noise


def attention_losses(
    recorder: AttentionRecorder, batch: Batch, valid: Bool[Tensor, "b n"]
) -> dict[str, Float[Tensor, ""]]:
    """Eq. 1 and missing shares of attention in the recorded forward pass: means over layers and over no strangers.

    Regions that the target does not show are left out.
    """
    valid = valid & shown_regions(batch)
    layers = [(maps, map_masks(batch.region_masks, maps.shape[2]), valid) for maps in recorder.maps(batch.positions)]
    own = ~batch.stranger
    return {
        name: (torch.stack([loss(*layer) for layer in layers]).mean(0) * own).sum() / own.sum().clamp(min=1)
        for name, loss in (("localisation", localisation_loss), ("share", share_loss))
    }


def shown_regions(batch: Batch) -> Bool[Tensor, "b n"]:
    """Which regions the target shows; the reference may be another photo, or the crop may lack some."""
    shown: Tensor = batch.region_masks.amax((2, 3)) > 0
    return shown


def map_masks(masks: Float[Tensor, "b n h w"], pixels: int) -> Float[Tensor, "b n q"]:
    """Masks at the resolution of attention maps with so many pixels, which have the latents' proportions."""
    height, width = masks.shape[2:]
    shrunk = round((height * width / pixels) ** 0.5)
    return F.adaptive_avg_pool2d(masks, (-(-height // shrunk), -(-width // shrunk))).flatten(2)


def _noise_weights(scheduler: NoiseScheduler, timesteps: Int[Tensor, " b"], *, config: StepConfig) -> Tensor:
    if config.weighting == "plain":
        return torch.ones(len(timesteps), device=timesteps.device)
    snr = signal_to_noise(scheduler, timesteps)
    return min_snr_weights(snr, prediction_type=scheduler.config.prediction_type)


def _mask(batch: Batch, everywhere: Bool[Tensor, " b"], *, config: StepConfig) -> Float[Tensor, "b 1 h w"]:
    """Weight of each place in the noise loss."""
    mask = torch.where(everywhere[:, None, None, None], torch.ones_like(batch.foreground), batch.foreground)
    mask = mask + config.face_weight * batch.region_masks[:, _FACE : _FACE + 1]
    return mask + config.detail_weight * batch.region_masks[:, _DETAILS].amax(1, keepdim=True)
