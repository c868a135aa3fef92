"""What a stock pipeline is given for a batch: embeddings before and after the merge step, and identity tokens."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.additions import expanded
from consistentid.generation.clip_skip import without_last_layers
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.conditioning import Conditioning


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Everything that depends on photo and prompt.

    The identity tokens do not change from step to step, so the projector runs once per photo, not once per step.

    Attributes:
        conditioning: of b images.
        identity_tokens: of the person.
        negative_identity_tokens: of nobody, for the guidance branch.
    """

    conditioning: Conditioning
    identity_tokens: Float[Tensor, "b 4 d"]
    negative_identity_tokens: Float[Tensor, "b 4 d"]


def embed(
    analysis: FaceAnalysis,
    prompt: str,
    settings: GenerationSettings,
    *,
    pipeline: Any,
    conditioner: Conditioner,
    idle: AbstractContextManager[Any],
) -> Embeddings:
    """Embeddings of one photo and prompt, for a batch of one, so that they do not depend on what else is asked for.

    Args:
        analysis: of the photo.
        prompt: as the user wrote it.
        settings: complete ones.
        pipeline: knows the words of textual inversions.
        conditioner: makes the conditioning.
        idle: entered while the projector, which belongs to the U-Net, is used.

    Raises:
        InvalidSettings: the caption, the regions or `clip_skip` do not fit, or compel is not installed.
        InvalidPrompt: a prompt cannot be used, or not with weights.
    """
    conditioning = without_last_layers(conditioner, settings.clip_skip).condition(
        analysis,
        expanded(pipeline, prompt),
        negative_prompt=expanded(pipeline, settings.negative_prompt),
        caption=settings.caption,
        regions=settings.regions,
        weighted=settings.prompt_weighting,
    )
    adapter = conditioner.adapter
    with idle, torch.no_grad():
        tokens = adapter.identity_tokens(conditioning.identity, conditioning.image_features)
        negative = adapter.identity_tokens(conditioning.negative_identity, conditioning.negative_image_features)
    return Embeddings(conditioning, tokens, negative)


@dataclass(frozen=True, eq=False)
class PipelineInputs:
    """What a pipeline's run needs.

    Attributes:
        arguments: of the pipeline's call.
        merged: replaces the tensors of its loop after the merge step.
        tokens: (n, 4, d) identity tokens of every row of the U-Net's batch.
    """

    arguments: dict[str, Any]
    merged: dict[str, Tensor]
    tokens: Float[Tensor, "n 4 d"]


def pipeline_inputs(
    parts: Sequence[Embeddings],
    *,
    guidance: bool,
    merged_from_start: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> PipelineInputs:
    """Join the embeddings of a batch.

    Args:
        parts: of every image.
        guidance: whether the pipeline runs the guidance branch; its half comes first in every joined tensor.
        merged_from_start: whether the region features take part in all steps.
        device: where the pipeline computes.
        dtype: of the U-Net, for the tokens.
    """
    # Latents take the type of the embeddings, and schedulers need its precision, so they are given in float32; a
    # pipeline whose text encoder has 16 bits casts them.
    joined = Conditioning.cat([part.conditioning for part in parts]).to(device, torch.float32)
    tokens = torch.cat([part.identity_tokens for part in parts])
    if guidance:
        tokens = torch.cat([torch.cat([part.negative_identity_tokens for part in parts]), tokens])
    first = joined.prompt_embeds if merged_from_start else joined.text_only_embeds
    arguments: dict[str, Any] = {
        "prompt_embeds": first,
        # Stock pipelines repeat this for every image, as if all were of one person: it only says that there is one.
        "ip_adapter_image_embeds": [torch.zeros(2 if guidance else 1, 1, 1, device=device)],
    }
    merged = {"prompt_embeds": joined.merged_embeds(guidance=guidance)}
    if guidance:
        negative = joined.negative_embeds if merged_from_start else joined.negative_text_only_embeds
        arguments["negative_prompt_embeds"] = negative
    pooled = joined.merged_pooled(guidance=guidance)
    if pooled is not None:
        arguments["pooled_prompt_embeds"] = joined.pooled if merged_from_start else joined.text_only_pooled
        arguments["negative_pooled_prompt_embeds"] = joined.negative_pooled
        merged["add_text_embeds"] = pooled
    return PipelineInputs(arguments, merged, tokens.to(device, dtype))
