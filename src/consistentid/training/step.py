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

from consistentid.dataset.samples import Batch, Told
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
    clean_latents,
    localisation_loss,
    min_snr_weights,
    noise_losses,
    signal_to_noise,
)
from consistentid.training.recognition import Recognition
from consistentid.training.teacher import Teacher

_FACE = REGION_NAMES.index("face")
_DETAILS = [REGION_NAMES.index(name) for name in ("eyes", "nose", "mouth")]
_VISIBLE = 0.98  # share of the noise schedule from which on the noisy latents show nothing


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
        identity_weight: of whom the recogniser sees in the predicted clean latents; 0 leaves it out.
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
    identity_weight: float = Field(default=0.0, ge=0)

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
        recorder: of the layers that eq. 1 looks at; None: it is not wanted.
        prior: to be followed, where `StepConfig.prior_weight` says so.
        recognition: looks at what is predicted, where `StepConfig.identity_weight` says so.
    """

    unet: UNet2DConditionModel
    text_encoders: tuple[PreTrainedModel, ...]
    adapter: IdentityAdapter
    scheduler: NoiseScheduler
    zero_features: Float[Tensor, "t di"]
    empty_ids: tuple[Int[Tensor, " l"], ...]
    recorder: AttentionRecorder | None = None
    prior: IdentityPrior | None = None
    recognition: Recognition | None = None


def training_step(models: TrainingModels, batch: Batch, draws: Draws, *, config: StepConfig) -> Losses:
    """Noise loss and eq. 1 on the samples that show their own reference; prior and recogniser see strangers, too."""
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
    total, localisation = noise, None
    if recorder:
        localisation = localisation_of(recorder, batch, kept.regions & own[:, None])
        total = total + config.localisation_weight * localisation
    parts: dict[str, Tensor] = {}
    if batch.told is not None and kept.fused:
        clean = clean_latents(models.scheduler, prediction, noisy, timesteps)
        seen = _Seen(batch, batch.told, kept, clean, noisy, timesteps)
        parts = _taught(models, seen, config=config) | _recognised(models, seen, draws.jitter, config=config)
        total = total + sum(getattr(config, f"{name}_weight") * loss for name, loss in parts.items())
    return Losses(total, noise, localisation, **parts)


@dataclass(frozen=True)
class _Seen:
    """What prior and recogniser see of a step: predicted clean latents, of which noisy ones, and what was told."""

    batch: Batch
    told: Told
    kept: Kept
    clean: Float[Tensor, "b c h w"]
    noisy: Float[Tensor, "b c h w"]
    timesteps: Int[Tensor, " b"]


def _taught(models: TrainingModels, seen: _Seen, *, config: StepConfig) -> dict[str, Tensor]:
    """What the identity prior says."""
    if models.prior is None or not config.is_taught:
        return {}
    stranger, twins, somebody = seen.batch.stranger, seen.batch.twins, seen.kept.somebody
    told = seen.kept.told(seen.told)
    teacher = Teacher(models.prior, models.scheduler, seen.clean, seen.noisy, seen.timesteps, told)
    least = torch.where(stranger, config.stranger_from, config.prior_from)
    follows = somebody & (seen.timesteps >= least * models.scheduler.config.num_train_timesteps)
    contrasts = somebody & somebody[twins] & stranger
    return {"prior": teacher.follow(follows), "contrast": teacher.contrast(contrasts, twins)}


def _recognised(
    models: TrainingModels, seen: _Seen, jitter: Float[Tensor, "b 3"], *, config: StepConfig
) -> dict[str, Tensor]:
    """What the recogniser says, where something can be seen and is not the face of a stranger's target."""
    if models.recognition is None or not config.identity_weight:
        return {}
    share = seen.timesteps / models.scheduler.config.num_train_timesteps
    rows = seen.kept.identity & (share < _VISIBLE) & (~seen.batch.stranger | (share >= config.stranger_from))
    return {"identity": models.recognition.distance(seen.clean[rows], seen.told.identity[rows], jitter[rows])}


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
        text = _fused(models, text, batch, kept.regions)
    features = torch.where(kept.identity[:, None, None], batch.whole_features, models.zero_features)
    return run_unet(
        models, noisy, timesteps, text, batch.identity_embedding * kept.identity[:, None], features, **added
    )


def _fused(
    models: TrainingModels, text: Float[Tensor, "b l d"], batch: Batch, regions: Bool[Tensor, "b n"]
) -> Float[Tensor, "b l d"]:
    """The text with region tokens; without regions it stays, but every process uses the same weights in a step."""
    encoder, given = models.adapter.facial_encoder, (batch.region_features, batch.positions)
    if regions.any():
        fused: Tensor = encoder(text, *given, regions)
        return fused
    first = torch.zeros_like(regions)
    first[0, 0] = True
    unchanged: Tensor = text + 0 * encoder(text, *given, first)
    return unchanged


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
    everywhere = keep(shape[0], config.foreground, generator)
    return Draws(noise, timesteps, kept, everywhere, torch.randn(shape[0], 3, generator=generator))


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
    """Eq. 1 of the recorded forward pass, mean over layers and over the samples that are no strangers.

    Regions that the target does not show are left out.
    """
    valid = valid & shown_regions(batch)
    layers = [
        localisation_loss(maps, map_masks(batch.region_masks, maps.shape[2]), valid)
        for maps in recorder.maps(batch.positions)
    ]
    own: Tensor = ~batch.stranger
    return (torch.stack(layers).mean(0) * own).sum() / own.sum().clamp(min=1)


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
