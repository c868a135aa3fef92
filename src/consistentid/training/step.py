"""One training step: Batch -> Losses. Pure: everything random is in the draws."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.attention_maps import AttentionRecorder
from consistentid.identity.text import encode_stream
from consistentid.training.conditions import ConditionDropout, Draws, Kept, keep
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import (
    LOCALISATION_WEIGHT,
    Losses,
    NoiseScheduler,
    localisation_loss,
    min_snr_weights,
    noise_losses,
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

    @property
    def is_taught(self) -> bool:
        """Whether the identity prior has a say."""
        return self.prior_weight + self.contrast_weight > 0


@dataclass(frozen=True)
class TrainingModels:
    """What a step needs; the adapter is attached to the U-Net.

    Attributes:
        text_encoders: one, or SDXL's two.
        scheduler: adds noise; tells what is to be predicted.
        zero_features: hidden states of the zero image, for dropped identities.
        empty_ids: the empty prompt, for each text encoder.
        recorder: entered by the caller when eq. 1 is wanted.
        prior: to be followed, where `StepConfig.prior_weight` says so.
    """

    unet: UNet2DConditionModel
    text_encoders: tuple[PreTrainedModel, ...]
    adapter: IdentityAdapter
    scheduler: NoiseScheduler
    zero_features: Float[Tensor, "t di"]
    empty_ids: tuple[Int[Tensor, " l"], ...]
    recorder: AttentionRecorder | None = None
    prior: IdentityPrior | None = None


def training_step(models: TrainingModels, batch: Batch, draws: Draws, *, config: StepConfig) -> Losses:
    """Noise loss and eq. 1 on the samples that show their own reference; all follow the prior."""
    own, twins = ~batch.stranger, batch.twins
    timesteps, kept = draws.timesteps[twins], draws.kept.of(batch)
    noisy, target = noised(models.scheduler, batch.latents, timesteps, draws.noise[twins])
    models.adapter.set_scale(kept.scale)
    recorder = models.recorder if config.localisation_weight and kept.fused else None
    with recorder.recording() if recorder else nullcontext():
        prediction = predict(models, batch, kept, noisy, timesteps)
    weights = _noise_weights(models.scheduler, timesteps, config=config)
    squared = noise_losses(prediction, target, _mask(batch, draws.everywhere, config=config))
    noise = (weights * squared)[own].mean()
    total, localisation, prior, contrast = noise, None, None, None
    if recorder:
        localisation = localisation_of(recorder, batch, kept.regions & own[:, None])
        total = total + config.localisation_weight * localisation
    if models.prior is not None and batch.told is not None and kept.fused and config.is_taught:
        teacher = Teacher(models.prior, models.scheduler, prediction, noisy, timesteps, kept.told(batch.told))
        told, least = kept.somebody, torch.where(own, config.prior_from, config.stranger_from)
        count = models.scheduler.config.num_train_timesteps
        prior = teacher.follow(told & (timesteps >= least * count))
        contrast = teacher.contrast(told & told[twins] & batch.stranger, twins)
        total = total + config.prior_weight * prior + config.contrast_weight * contrast
    return Losses(total, noise, localisation, prior, contrast)


def predict(
    models: TrainingModels,
    batch: Batch,
    kept: Kept,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """The U-Net's prediction when it is told the conditions that are kept."""
    text, added = _encoded_text(models, batch, kept)
    if kept.fused:
        text = models.adapter.facial_encoder(text, batch.region_features, batch.positions, kept.regions)
    features = torch.where(kept.identity[:, None, None], batch.whole_features, models.zero_features)
    return run_unet(
        models, noisy, timesteps, text, batch.identity_embedding * kept.identity[:, None], features, **added
    )


def run_unet(
    models: TrainingModels,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    text: Float[Tensor, "b l dt"],
    identity: Float[Tensor, "b d"],
    image_features: Float[Tensor, "b t di"],
    **added: Tensor,
) -> Float[Tensor, "b c h w"]:
    """The U-Net's prediction for texts, identity embeddings, hidden states of the reference's head and SDXL's own."""
    models.adapter.set_image_features(image_features)
    prediction: Tensor = models.unet(
        noisy, timesteps, text, added_cond_kwargs={"image_embeds": [identity[:, None]], **added}
    ).sample
    return prediction


def _encoded_text(models: TrainingModels, batch: Batch, kept: Kept) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings of the prompts, and what SDXL gets besides."""
    streams = [batch.ids] if batch.sdxl is None else [batch.ids, batch.sdxl.ids]
    said = [torch.where(kept.text[:, None], ids, empty) for ids, empty in zip(streams, models.empty_ids, strict=True)]
    layer = models.adapter.config.quirks.text_layer
    encoded = [encode_stream(*pair, layer=layer) for pair in zip(models.text_encoders, said, strict=True)]
    text = torch.cat([one.tokens for one in encoded], dim=-1)
    if batch.sdxl is None:
        return text, {}
    pooled = encoded[-1].pooled
    assert pooled is not None  # SDXL's second text encoder has a projection
    return text, {"text_embeds": pooled, "time_ids": batch.sdxl.time_ids}


def draw_step(
    shape: tuple[int, ...], scheduler: NoiseScheduler, generator: torch.Generator, *, config: StepConfig
) -> Draws:
    """Everything random of a step on latents of a shape (b, c, h, w)."""
    steps = scheduler.config.num_train_timesteps
    timesteps = (spread(shape[0], generator) ** config.timestep_power * steps).long().clamp(max=steps - 1)
    noise = torch.randn(shape, generator=generator)
    kept = Kept.draw(shape[0], len(REGION_NAMES), generator, config=config)
    return Draws(noise, timesteps, kept, keep(shape[0], config.foreground, generator))


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


def localisation_of(recorder: AttentionRecorder, batch: Batch, valid: Bool[Tensor, "b n"]) -> Tensor:
    """Eq. 1 of the recorded forward pass, mean over layers and over the samples that are no strangers."""
    layers = [
        localisation_loss(maps, map_masks(batch.region_masks, maps.shape[2]), valid)
        for maps in recorder.maps(batch.positions)
    ]
    own: Tensor = ~batch.stranger
    return (torch.stack(layers).mean(0) * own).sum() / own.sum().clamp(min=1)


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
