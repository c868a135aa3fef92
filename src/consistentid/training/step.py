"""One training step: Batch -> Losses. Pure: everything random comes from the generator."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import CLIPTextModel

from consistentid.dataset.samples import Batch
from consistentid.identity.adapter import IdentityAdapter
from consistentid.training.attention import AttentionRecorder
from consistentid.training.identity_loss import IdentityCritic
from consistentid.training.losses import (
    LOCALISATION_WEIGHT,
    Losses,
    localisation_loss,
    min_snr_weights,
    noise_loss,
    signal_to_noise,
)

_Probability = Field(ge=0, le=1)


class StepConfig(BaseModel):
    """How conditions are dropped and losses weighted.

    Attributes:
        drop_all: the guidance branch: no text, no regions, zero identity.
        drop_text: no text and no regions, identity kept.
        drop_identity: zero identity and zero image features, text and regions kept.
        drop_regions: no regions, as before the merge step.
        drop_region: each region on its own.
        base_only: the whole batch without the adapter, so that the base model stays a text-to-image model.
        foreground: the noise loss looks at the person only (the paper: 0.5).
        weighting: of the noise loss over timesteps. Min-SNR weights fall to nothing at high noise, where layout and
            colours are decided: with velocity prediction, a model trained from scratch ignored its text (0.00001 of
            0.193 when texts were exchanged, after 22,000 samples). Use it to fine-tune, not to start.
        localisation_weight: of eq. 1; 0 leaves it out.
        identity_weight: of the identity loss; 0 leaves it out.
        identity_timesteps: range of the noise schedule in which the identity loss looks: with less noise the noisy
            latents show who it is, with more the predicted image shows nobody. Strangers are drawn from it alone.
        identity_samples: at most so many samples of a batch are decoded for it.
    """

    model_config = ConfigDict(extra="forbid")

    drop_all: float = _Probability
    drop_text: float = _Probability
    drop_identity: float = _Probability
    drop_regions: float = _Probability
    drop_region: float = _Probability
    base_only: float = Field(default=0.0, ge=0, le=1)
    foreground: float = Field(default=0.5, ge=0, le=1)
    weighting: Literal["plain", "min-snr"] = "plain"
    localisation_weight: float = Field(default=LOCALISATION_WEIGHT, ge=0)
    identity_weight: float = Field(default=0.0, ge=0)
    identity_timesteps: tuple[float, float] = (0.35, 0.85)
    identity_samples: int = Field(default=16, gt=0)


@dataclass(frozen=True)
class TrainingModels:
    """What a step needs; the adapter is attached to the U-Net.

    Attributes:
        zero_features: hidden states of the zero image, for dropped identities.
        empty_ids: the empty prompt.
        recorder: entered by the caller when eq. 1 is wanted.
        critic: for the identity loss.
    """

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    adapter: IdentityAdapter
    scheduler: DDIMScheduler
    zero_features: Float[Tensor, "t di"]
    empty_ids: Int[Tensor, " l"]
    recorder: AttentionRecorder | None = None
    critic: IdentityCritic | None = None


def training_step(models: TrainingModels, batch: Batch, generator: torch.Generator, *, config: StepConfig) -> Losses:
    """Noise loss, eq. 1 and the identity loss of one batch."""
    noisy, target, timesteps = _noised(models.scheduler, batch, generator, config=config)
    base_only = bool(torch.rand((), generator=generator) < config.base_only)
    models.adapter.set_scale(0.0 if base_only else 1.0)
    text, valid = _text(models, batch, generator, config=config, base_only=base_only)
    keep = _keep(len(noisy), config.drop_identity, generator) & (text.identity_kept)
    whole = torch.where(keep[:, None, None], batch.whole_features, models.zero_features)
    models.adapter.set_image_features(whole)
    with models.recorder.recording(batch.positions) if models.recorder else nullcontext():
        prediction = models.unet(
            noisy,
            timesteps,
            text.embeddings,
            added_cond_kwargs={"image_embeds": [(batch.identity_embedding * keep[:, None])[:, None]]},
        ).sample
    noise = _weighted_noise_loss(models.scheduler, prediction, target, timesteps, batch, generator, config=config)
    total = noise
    localisation = identity = None
    if models.recorder is not None and config.localisation_weight and not base_only:
        localisation = _localisation(models.recorder, batch, valid)
        total = total + config.localisation_weight * localisation
    if models.critic is not None and config.identity_weight and not base_only:
        shown = keep | valid.any(1)
        identity = _identity(models, noisy, prediction, timesteps, batch, shown, generator, config=config)
        total = total + config.identity_weight * identity
    return Losses(total, noise, localisation, identity)


@dataclass(frozen=True)
class _Text:
    embeddings: Float[Tensor, "b l d"]
    identity_kept: Bool[Tensor, " b"]


def _text(
    models: TrainingModels, batch: Batch, generator: torch.Generator, *, config: StepConfig, base_only: bool
) -> tuple[_Text, Bool[Tensor, "b n"]]:
    """Text embeddings with the region features fused in, after dropping conditions."""
    count = len(batch.ids)
    all_kept = _keep(count, config.drop_all, generator)
    text_kept = all_kept & _keep(count, config.drop_text, generator)
    ids = torch.where(text_kept[:, None], batch.ids, models.empty_ids)
    valid = batch.valid & text_kept[:, None] & _keep(count, config.drop_regions, generator)[:, None]
    valid = valid & (torch.rand(batch.valid.shape, generator=generator) >= config.drop_region)
    embeddings = models.text_encoder(ids).last_hidden_state
    if not base_only:
        embeddings = models.adapter.facial_encoder(embeddings, batch.region_features, batch.positions, valid)
    return _Text(embeddings, all_kept), valid


def _keep(count: int, drop: float, generator: torch.Generator) -> Bool[Tensor, " b"]:
    return torch.rand(count, generator=generator) >= drop


def _noised(
    scheduler: DDIMScheduler, batch: Batch, generator: torch.Generator, *, config: StepConfig
) -> tuple[Tensor, Tensor, Int[Tensor, " b"]]:
    """Noisy latents, what the U-Net is to predict, and the timesteps."""
    latents, count = batch.latents, scheduler.config.num_train_timesteps
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(count, (len(latents),), generator=generator)
    first, last = config.identity_timesteps
    timesteps = torch.where(batch.stranger, (first * count + (last - first) * timesteps).long(), timesteps)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    if scheduler.config.prediction_type == "v_prediction":
        return noisy, scheduler.get_velocity(latents, noise, timesteps), timesteps
    return noisy, noise, timesteps


def _weighted_noise_loss(
    scheduler: DDIMScheduler,
    prediction: Tensor,
    target: Tensor,
    timesteps: Tensor,
    batch: Batch,
    generator: torch.Generator,
    *,
    config: StepConfig,
) -> Tensor:
    weights = torch.ones(len(target), device=target.device)
    if config.weighting == "min-snr":
        snr = signal_to_noise(scheduler, timesteps)
        weights = min_snr_weights(snr, prediction_type=scheduler.config.prediction_type)
    everywhere = _keep(len(target), config.foreground, generator)
    mask = torch.where(everywhere[:, None, None, None], torch.ones_like(batch.foreground), batch.foreground)
    own = ~batch.stranger
    return noise_loss(prediction[own], target[own], weights[own], mask[own])


def _localisation(recorder: AttentionRecorder, batch: Batch, valid: Bool[Tensor, "b n"]) -> Tensor:
    layers = []
    for maps in recorder.maps:
        side = round(maps.shape[2] ** 0.5)
        masks = torch.nn.functional.adaptive_avg_pool2d(batch.region_masks, side)
        layers.append(localisation_loss(maps, masks.flatten(2), valid))
    return torch.stack(layers).mean()


def _identity(
    models: TrainingModels,
    noisy: Tensor,
    prediction: Tensor,
    timesteps: Tensor,
    batch: Batch,
    shown: Bool[Tensor, " b"],
    generator: torch.Generator,
    *,
    config: StepConfig,
) -> Tensor:
    """Mean distance over samples with medium noise that were told something of the person."""
    assert models.critic is not None
    first, last = (share * models.scheduler.config.num_train_timesteps for share in config.identity_timesteps)
    chosen = torch.nonzero(shown & (timesteps >= first) & (timesteps < last))[: config.identity_samples, 0]
    if len(chosen) == 0:
        return prediction.new_zeros(())
    alpha = models.scheduler.alphas_cumprod[timesteps[chosen]].view(-1, 1, 1, 1)
    # Clean latents from the predicted velocity (arXiv:2202.00512, appendix D).
    clean = alpha.sqrt() * noisy[chosen] - (1 - alpha).sqrt() * prediction[chosen].float()
    return models.critic.distances(clean, batch.landmarks[chosen], batch.target_identity[chosen], generator).mean()
