"""What the U-Net predicts when it is told the conditions of a batch."""

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from consistentid.dataset.samples import Batch
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.attention_maps import AttentionRecorder
from consistentid.identity.conditioning import weighted_tokens
from consistentid.identity.text import encode_stream
from consistentid.training.conditions import Kept
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import NoiseScheduler
from consistentid.training.recognition import Recognition


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
        recognition: looks at what is predicted, where `StepConfig.is_recognised`.
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


def predict(
    models: TrainingModels,
    batch: Batch,
    kept: Kept,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
    *,
    weights: Float[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """The U-Net's prediction when it is told the conditions that are kept; without weights, all regions have 1."""
    text, added = _encoded_text(models, batch, kept)
    if kept.fused:
        fused = _fused(models, text, batch, kept.regions)
        text = fused if weights is None else _weighted(text, fused, batch, kept.regions, weights)
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


def _weighted(
    text: Float[Tensor, "b l d"],
    fused: Float[Tensor, "b l d"],
    batch: Batch,
    regions: Bool[Tensor, "b n"],
    weights: Float[Tensor, "b n"],
) -> Float[Tensor, "b l d"]:
    """The text with weighted region tokens."""
    rows, which = torch.nonzero(regions, as_tuple=True)
    return weighted_tokens(text, fused, (rows, batch.positions[rows, which]), weights[rows, which].to(text.dtype))


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
