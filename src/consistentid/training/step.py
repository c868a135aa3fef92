"""One training step: Batch -> Losses. Pure: everything random comes from the generator."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
from consistentid.training.identity_loss import IdentityCritic, identity_loss
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
        identity_weight: of the identity loss, which looks at strangers alone; 0 leaves it out.
        identity_timesteps: range of the noise schedule in which it looks: with less noise the noisy latents show
            somebody else, with more the predicted image shows nobody.
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
    identity_weight: float = Field(default=0.0, ge=0)
    identity_timesteps: tuple[float, float] = (0.4, 0.9)


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
    """Noise loss and eq. 1 on the samples that show their own reference, the identity loss on the strangers."""
    base_only = bool(torch.rand((), generator=generator) < config.base_only)
    models.adapter.set_scale(0.0 if base_only else 1.0)
    noise, localisation = _denoise(models, batch.rows(~batch.stranger), generator, config=config, base_only=base_only)
    total = noise
    if localisation is not None:
        total = total + config.localisation_weight * localisation
    identity = None
    if models.critic is not None and config.identity_weight and batch.stranger.any() and not base_only:
        others = batch.target_identity[~batch.stranger]
        identity = _recognise(models, models.critic, batch.rows(batch.stranger), others, generator, config=config)
        total = total + config.identity_weight * identity
    return Losses(total, noise, localisation, identity)


def _denoise(
    models: TrainingModels, batch: Batch, generator: torch.Generator, *, config: StepConfig, base_only: bool
) -> tuple[Tensor, Tensor | None]:
    """Noise loss and eq. 1."""
    count = models.scheduler.config.num_train_timesteps
    share = spread(len(batch.ids), generator) ** config.timestep_power
    timesteps = (share * count).long().clamp(max=count - 1)
    noisy, target = _noised(models.scheduler, batch.latents, timesteps, generator)
    conditions = _dropped(models, batch, generator, config=config)
    localised = models.recorder if config.localisation_weight and not base_only else None
    with localised.recording(batch.positions) if localised else nullcontext():
        prediction = _predict(models, batch, conditions, noisy, timesteps, base_only=base_only)
    noise = _weighted_noise_loss(models.scheduler, prediction, target, timesteps, batch, generator, config=config)
    return noise, _localisation(localised, batch, conditions.valid) if localised else None


def _recognise(
    models: TrainingModels,
    critic: IdentityCritic,
    batch: Batch,
    others: Float[Tensor, "n d"],
    generator: torch.Generator,
    *,
    config: StepConfig,
) -> Tensor:
    """Whether the predicted clean images show the people of the references rather than others.

    Convolutions and the text encoder get no gradients: they learn to draw patterns which please the recogniser and
    are no faces (measured: after 1,000 steps the detector found a face in 27 % of the portraits).
    """
    count = models.scheduler.config.num_train_timesteps
    first, last = (round(share * count) for share in config.identity_timesteps)
    timesteps = torch.randint(first, last, (len(batch.ids),), generator=generator)
    noisy, _ = _noised(models.scheduler, batch.latents, timesteps, generator)
    always_text = config.model_copy(update={"drop_all": 0.0, "drop_text": 0.0})
    conditions = _dropped(models, batch, generator, config=always_text)
    with _convolutions_frozen(models):
        prediction = _predict(models, batch, conditions, noisy, timesteps, base_only=False)
    # Clean latents from the predicted velocity (arXiv:2202.00512, appendix D).
    alpha = models.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    clean = alpha.sqrt() * noisy - (1 - alpha).sqrt() * prediction.float()
    told = conditions.identity | conditions.valid.any(1)
    if not told.any():
        return clean.sum() * 0
    embeddings = critic.embed(clean[told], batch.landmarks[told], generator)
    return identity_loss(embeddings, batch.target_identity[told], others)


@contextmanager
def _convolutions_frozen(models: TrainingModels) -> Iterator[None]:
    """Graphs made in the block lead to the adapter's and the transformers' parameters only."""
    groups = models.adapter.parameters_by_group().values()
    taught = {id(parameter) for group in groups for parameter in group.values()}
    taught |= {id(parameter) for name, parameter in models.unet.named_parameters() if ".transformer_blocks." in name}
    parameters = (*models.unet.parameters(), *models.text_encoder.parameters())
    others = [one for one in parameters if one.requires_grad and id(one) not in taught]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


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


def _localisation(recorder: AttentionRecorder, batch: Batch, valid: Bool[Tensor, "b n"]) -> Tensor:
    layers = []
    for maps in recorder.maps:
        side = round(maps.shape[2] ** 0.5)
        masks = torch.nn.functional.adaptive_avg_pool2d(batch.region_masks, side)
        layers.append(localisation_loss(maps, masks.flatten(2), valid))
    return torch.stack(layers).mean()
