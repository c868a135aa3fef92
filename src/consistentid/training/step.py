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
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.adapter import IdentityAdapter
from consistentid.training.attention import AttentionRecorder
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import (
    LOCALISATION_WEIGHT,
    Losses,
    localisation_loss,
    min_snr_weights,
    noise_loss,
    signal_to_noise,
)

_Probability = Field(ge=0, le=1)
_FACE = REGION_NAMES.index("face")


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
        face_weight: added to the noise loss's weight of 1 where the face is.
        weighting: of the noise loss over timesteps. Min-SNR weights fall to nothing at high noise, where layout and
            colours are decided: with velocity prediction, a model trained from scratch ignored its text (0.00001 of
            0.193 when texts were exchanged, after 22,000 samples). Use it to fine-tune, not to start.
        timestep_power: timesteps of the noise loss are u ** timestep_power of the schedule with u uniform; less than 1
            prefers high noise, where the conditions decide most.
        localisation_weight: of eq. 1; 0 leaves it out.
        prior_weight: of following the identity prior; 0 leaves it out.
        prior_from: least share of the noise schedule at which it is followed by samples that show their reference.
        stranger_from: the same for strangers, whose noisy latents show somebody else when there is less noise.
    """

    model_config = ConfigDict(extra="forbid")

    drop_all: float = _Probability
    drop_text: float = _Probability
    drop_identity: float = _Probability
    drop_regions: float = _Probability
    drop_region: float = _Probability
    base_only: float = Field(default=0.0, ge=0, le=1)
    foreground: float = Field(default=0.5, ge=0, le=1)
    face_weight: float = Field(default=0.0, ge=0)
    weighting: Literal["plain", "min-snr"] = "plain"
    timestep_power: float = Field(default=1.0, gt=0, le=1)
    localisation_weight: float = Field(default=LOCALISATION_WEIGHT, ge=0)
    prior_weight: float = Field(default=0.0, ge=0)
    prior_from: float = Field(default=0.5, ge=0, lt=1)
    stranger_from: float = Field(default=0.9, ge=0, lt=1)


@dataclass(frozen=True)
class TrainingModels:
    """What a step needs; the adapter is attached to the U-Net.

    Attributes:
        zero_features: hidden states of the zero image, for dropped identities.
        empty_ids: the empty prompt.
        recorder: entered by the caller when eq. 1 is wanted.
        prior: to be followed, where `StepConfig.prior_weight` says so.
    """

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    adapter: IdentityAdapter
    scheduler: DDIMScheduler
    zero_features: Float[Tensor, "t di"]
    empty_ids: Int[Tensor, " l"]
    recorder: AttentionRecorder | None = None
    prior: IdentityPrior | None = None


def training_step(models: TrainingModels, batch: Batch, generator: torch.Generator, *, config: StepConfig) -> Losses:
    """Noise loss and eq. 1 on the samples that show their own reference; all follow the prior."""
    base_only = bool(torch.rand((), generator=generator) < config.base_only)
    models.adapter.set_scale(0.0 if base_only else 1.0)
    timesteps = _timesteps(models.scheduler, batch.stranger, generator, config=config)
    noisy, target = _noised(models.scheduler, batch.latents, timesteps, generator)
    conditions = _dropped(models, batch, generator, config=config)
    recorder = models.recorder if config.localisation_weight and not base_only else None
    with recorder.recording(batch.positions) if recorder else nullcontext():
        prediction = _predict(models, batch, conditions, noisy, timesteps, base_only=base_only)
    own = ~batch.stranger
    noise = _weighted_noise_loss(
        models.scheduler, prediction[own], target[own], timesteps[own], batch.rows(own), generator, config=config
    )
    total, localisation, prior = noise, None, None
    if recorder:
        localisation = _localisation(recorder, batch, conditions.valid, own)
        total = total + config.localisation_weight * localisation
    if models.prior is not None and config.prior_weight and not base_only:
        late = timesteps >= config.prior_from * models.scheduler.config.num_train_timesteps
        told = conditions.identity & (late | batch.stranger)
        prior = _follow(models.prior, models.scheduler, prediction, noisy, timesteps, batch.target_identity, told)
        total = total + config.prior_weight * prior
    return Losses(total, noise, localisation, prior)


def _timesteps(
    scheduler: DDIMScheduler, stranger: Bool[Tensor, " b"], generator: torch.Generator, *, config: StepConfig
) -> Int[Tensor, " b"]:
    count = scheduler.config.num_train_timesteps
    share = spread(len(stranger), generator) ** config.timestep_power
    late = 1 - (1 - config.stranger_from) * torch.rand(len(stranger), generator=generator) ** 2
    return (torch.where(stranger, late, share) * count).long().clamp(max=count - 1)


def _follow(
    prior: IdentityPrior,
    scheduler: DDIMScheduler,
    prediction: Float[Tensor, "b c h w"],
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    identity: Float[Tensor, "b d"],
    told: Bool[Tensor, " b"],
) -> Tensor:
    """How far the predicted clean latents of samples that were told an identity are from what it says of them."""
    if not told.any():
        return prediction.sum() * 0
    alphas = scheduler.alphas_cumprod[timesteps[told]]
    alpha = alphas.view(-1, 1, 1, 1)
    # Clean latents from the predicted velocity (arXiv:2202.00512, appendix D).
    clean = alpha.sqrt() * noisy[told] - (1 - alpha).sqrt() * prediction[told].float()
    return prior.loss(clean, noisy[told], alphas, identity[told])


@dataclass(frozen=True)
class _Conditions:
    """What the U-Net is told of each sample, after dropping."""

    ids: Int[Tensor, "b l"]
    valid: Bool[Tensor, "b n"]
    identity: Bool[Tensor, " b"]


def _dropped(models: TrainingModels, batch: Batch, generator: torch.Generator, *, config: StepConfig) -> _Conditions:
    count = len(batch.ids)
    all_kept = _keep(count, config.drop_all, generator)
    text_kept = all_kept & _keep(count, config.drop_text, generator)
    valid = batch.valid & text_kept[:, None] & _keep(count, config.drop_regions, generator)[:, None]
    return _Conditions(
        ids=torch.where(text_kept[:, None], batch.ids, models.empty_ids),
        valid=valid & (torch.rand(batch.valid.shape, generator=generator) >= config.drop_region),
        identity=all_kept & _keep(count, config.drop_identity, generator),
    )


def _predict(
    models: TrainingModels,
    batch: Batch,
    conditions: _Conditions,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    *,
    base_only: bool,
) -> Float[Tensor, "b c h w"]:
    """The U-Net's prediction under the conditions."""
    text = models.text_encoder(conditions.ids).last_hidden_state
    if not base_only:
        text = models.adapter.facial_encoder(text, batch.region_features, batch.positions, conditions.valid)
    kept = conditions.identity
    models.adapter.set_image_features(torch.where(kept[:, None, None], batch.whole_features, models.zero_features))
    embeddings = (batch.identity_embedding * kept[:, None])[:, None]
    prediction: Tensor = models.unet(noisy, timesteps, text, added_cond_kwargs={"image_embeds": [embeddings]}).sample
    return prediction


def spread(count: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Uniform in 0..1, one in each of `count` equal parts: less noise in the loss than independent draws."""
    return (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count


def _keep(count: int, drop: float, generator: torch.Generator) -> Bool[Tensor, " b"]:
    return torch.rand(count, generator=generator) >= drop


def _noised(
    scheduler: DDIMScheduler,
    latents: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Noisy latents, and what the U-Net is to predict."""
    noise = torch.randn(latents.shape, generator=generator)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    if scheduler.config.prediction_type == "v_prediction":
        return noisy, scheduler.get_velocity(latents, noise, timesteps)
    return noisy, noise


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
    mask = mask + config.face_weight * batch.region_masks[:, _FACE : _FACE + 1]
    return noise_loss(prediction, target, weights, mask)


def _localisation(
    recorder: AttentionRecorder, batch: Batch, valid: Bool[Tensor, "b n"], rows: Bool[Tensor, " b"]
) -> Tensor:
    layers = []
    for maps in recorder.maps:
        side = round(maps.shape[2] ** 0.5)
        masks = torch.nn.functional.adaptive_avg_pool2d(batch.region_masks, side)
        layers.append(localisation_loss(maps[rows], masks[rows].flatten(2), valid[rows]))
    return torch.stack(layers).mean()
