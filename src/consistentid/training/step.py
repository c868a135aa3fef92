"""One training step: Batch -> Losses. Pure: everything random comes from the generator."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from transformers import CLIPTextModel

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.adapter import IdentityAdapter
from consistentid.training.attention import AttentionRecorder
from consistentid.training.conditions import ConditionDropout, Conditions, dropped, keep
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import (
    LOCALISATION_WEIGHT,
    Losses,
    localisation_loss,
    min_snr_weights,
    noise_loss,
    signal_to_noise,
)
from consistentid.training.teacher import Teacher

_FACE = REGION_NAMES.index("face")
_DETAILS = [REGION_NAMES.index(name) for name in ("eyes", "nose", "mouth")]


class StepConfig(ConditionDropout):
    """How conditions are dropped (see `ConditionDropout`) and losses weighted.

    Attributes:
        foreground: the noise loss looks at the person only (the paper: 0.5).
        face_weight: added to the noise loss's weight of 1 where the face is.
        detail_weight: added likewise where eyes, nose or mouth are: a few pixels, and what people look at.
        weighting: of the noise loss over timesteps. Min-SNR weights fall to nothing at high noise, where layout and
            colours are decided: with velocity prediction, a model trained from scratch ignored its text (0.00001 of
            0.193 when texts were exchanged, after 22,000 samples). Use it to fine-tune, not to start.
        timestep_power: timesteps of the noise loss are u ** timestep_power of the schedule with u uniform; less than 1
            prefers high noise, where the conditions decide most.
        localisation_weight: of eq. 1; 0 leaves it out.
        prior_weight: of following the identity prior; 0 leaves it out.
        prior_from: least share of the noise schedule at which it is followed by samples that show their reference.
        stranger_from: the same for strangers, whose noisy latents show somebody else when there is less noise.
        contrast_weight: of what a stranger's reference and text must change in the prediction, at any noise.
    """

    foreground: float = Field(default=0.5, ge=0, le=1)
    face_weight: float = Field(default=0.0, ge=0)
    detail_weight: float = Field(default=0.0, ge=0)
    weighting: Literal["plain", "min-snr"] = "plain"
    timestep_power: float = Field(default=1.0, gt=0, le=1)
    localisation_weight: float = Field(default=LOCALISATION_WEIGHT, ge=0)
    prior_weight: float = Field(default=0.0, ge=0)
    prior_from: float = Field(default=0.5, ge=0, lt=1)
    stranger_from: float = Field(default=0.9, ge=0, lt=1)
    contrast_weight: float = Field(default=0.0, ge=0)


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
    own, twins = ~batch.stranger, batch.twins
    count = models.scheduler.config.num_train_timesteps
    timesteps = (spread(len(own), generator) ** config.timestep_power * count).long().clamp(max=count - 1)[twins]
    noisy, target = _noised(models.scheduler, batch.latents, timesteps, generator, twins)
    conditions = dropped(batch, models.empty_ids, generator, config=config)
    models.adapter.set_scale(conditions.scale)
    recorder = models.recorder if config.localisation_weight and conditions.fused else None
    with recorder.recording(batch.positions) if recorder else nullcontext():
        prediction = _predict(models, batch, conditions, noisy, timesteps)
    noise = _weighted_noise_loss(
        models.scheduler, prediction[own], target[own], timesteps[own], batch.rows(own), generator, config=config
    )
    total, localisation, prior, contrast = noise, None, None, None
    if recorder:
        localisation = _localisation(recorder, batch, conditions.valid, own)
        total = total + config.localisation_weight * localisation
    if models.prior is not None and conditions.fused and config.prior_weight + config.contrast_weight:
        teacher = Teacher(models.prior, models.scheduler, prediction, noisy, timesteps, conditions.told(batch))
        told, least = conditions.somebody, torch.where(own, config.prior_from, config.stranger_from)
        prior = teacher.follow(told & (timesteps >= least * count))
        contrast = teacher.contrast(told & told[twins] & batch.stranger, twins)
        total = total + config.prior_weight * prior + config.contrast_weight * contrast
    return Losses(total, noise, localisation, prior, contrast)


def _predict(
    models: TrainingModels,
    batch: Batch,
    conditions: Conditions,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """The U-Net's prediction under the conditions."""
    text = models.text_encoder(conditions.ids).last_hidden_state
    if conditions.fused:
        text = models.adapter.facial_encoder(text, batch.region_features, batch.positions, conditions.valid)
    kept = conditions.identity
    features = torch.where(kept[:, None, None], batch.whole_features, models.zero_features)
    return predict(models, noisy, timesteps, text, batch.identity_embedding * kept[:, None], features)


def predict(
    models: TrainingModels,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    text: Float[Tensor, "b l dt"],
    identity: Float[Tensor, "b d"],
    image_features: Float[Tensor, "b t di"],
) -> Float[Tensor, "b c h w"]:
    """The U-Net's prediction for texts, identity embeddings and hidden states of the reference's head."""
    models.adapter.set_image_features(image_features)
    prediction: Tensor = models.unet(
        noisy, timesteps, text, added_cond_kwargs={"image_embeds": [identity[:, None]]}
    ).sample
    return prediction


def spread(count: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Uniform in 0..1, one in each of `count` equal parts: less noise in the loss than independent draws."""
    return (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count


def _noised(
    scheduler: DDIMScheduler,
    latents: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    generator: torch.Generator,
    twins: Int[Tensor, " b"],
) -> tuple[Tensor, Tensor]:
    """Noisy latents, the same for twins, and what the U-Net is to predict."""
    noise = torch.randn(latents.shape, generator=generator)[twins]
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
    everywhere = keep(len(target), config.foreground, generator)
    mask = torch.where(everywhere[:, None, None, None], torch.ones_like(batch.foreground), batch.foreground)
    mask = mask + config.face_weight * batch.region_masks[:, _FACE : _FACE + 1]
    mask = mask + config.detail_weight * batch.region_masks[:, _DETAILS].amax(1, keepdim=True)
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
