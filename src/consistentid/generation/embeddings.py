"""What a stock pipeline is given for a batch: embeddings and identity tokens of every phase of a run."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from consistentid.generation.additions import expanded
from consistentid.generation.clip_skip import without_last_layers
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.conditioner import Conditioner, Face
from consistentid.identity.conditioning import Conditioning
from consistentid.identity.control import Strengths
from consistentid.identity.mixing import MixedFace


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Everything that depends on photo and prompt.

    The identity tokens do not change from step to step, so the projector runs once per photo, not once per step.

    Attributes:
        conditioning: of b images.
        identity_tokens: of the person, 4 for each photo with tokens of its own.
        negative_identity_tokens: of nobody, for the guidance branch.
    """

    conditioning: Conditioning
    identity_tokens: Float[Tensor, "b t d"]
    negative_identity_tokens: Float[Tensor, "b t d"]


def embed(
    face: Face,
    prompt: str,
    settings: GenerationSettings,
    *,
    pipeline: Any,
    conditioner: Conditioner,
    idle: AbstractContextManager[Any],
) -> Embeddings:
    """Embeddings of one face and prompt, for a batch of one, so that they do not depend on what else is asked for.

    Args:
        face: of one photo, or mixed.
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
        face,
        expanded(pipeline, prompt),
        negative_prompt=expanded(pipeline, settings.negative_prompt),
        caption=settings.caption,
        regions=settings.regions,
        words={region: expanded(pipeline, words) for region, words in settings.words.items()},
        weighted=settings.prompt_weighting,
    )
    side_by_side = isinstance(face, MixedFace) and face.side_by_side
    identities = conditioner.identities(face) if side_by_side else (conditioning.identity, conditioning.image_features)
    adapter = conditioner.adapter
    with idle, torch.no_grad():
        tokens = adapter.identity_tokens(*identities).flatten(0, 1)[None]
        negative = adapter.identity_tokens(conditioning.negative_identity, conditioning.negative_image_features)
    return Embeddings(conditioning, tokens, negative.repeat(1, tokens.shape[1] // negative.shape[1], 1))


@dataclass(frozen=True, eq=False)
class Phase:
    """What the U-Net reads until the next phase.

    Attributes:
        tensors: of the pipeline's loop (`prompt_embeds`, on SDXL also `add_text_embeds`); with guidance the negative
            half comes first.
        tokens: (n, t, d) identity tokens of every row of the U-Net's batch.
    """

    tensors: dict[str, Tensor]
    tokens: Float[Tensor, "n t d"]


@dataclass(frozen=True, eq=False)
class PipelineInputs:
    """What a pipeline's run needs.

    Attributes:
        arguments: of the pipeline's call.
        phases: by their first step; the first one begins at 0 and is what the arguments hold.
    """

    arguments: dict[str, Any]
    phases: dict[int, Phase]


def pipeline_inputs(
    parts: Sequence[Embeddings],
    strengths: Mapping[int, Sequence[Strengths]],
    *,
    guidance: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> PipelineInputs:
    """Join the embeddings of a batch.

    Args:
        parts: of every image.
        strengths: what acts in every image, by first step; see `control.phases`.
        guidance: whether the pipeline runs the guidance branch; its half comes first in every joined tensor.
        device: where the pipeline computes.
        dtype: of the U-Net, for the tokens.
    """
    # Latents take the type of the embeddings, and schedulers need its precision, so they are given in float32; a
    # pipeline whose text encoder has 16 bits casts them.
    joined = Conditioning.cat([part.conditioning for part in parts]).to(device, torch.float32)
    read = {start: _read(joined, rows) for start, rows in strengths.items()}
    tokens: dict[tuple[float, ...], Tensor] = {}
    phases = {}
    for start, rows in strengths.items():
        weights = tuple(row.identity for row in rows)
        if weights not in tokens:  # phases with the same ones share the tensor
            tokens[weights] = _tokens(parts, weights, guidance=guidance).to(device, dtype)
        phases[start] = Phase(_of_the_loop(read[start], guidance=guidance), tokens[weights])
    arguments: dict[str, Any] = {
        "prompt_embeds": read[0].prompt_embeds,
        # Stock pipelines repeat this for every image, as if all were of one person: it only says that there is one.
        "ip_adapter_image_embeds": [torch.zeros(2 if guidance else 1, 1, 1, device=device)],
    }
    if guidance:
        arguments["negative_prompt_embeds"] = read[0].negative_embeds
    if joined.pooled is not None:
        arguments["pooled_prompt_embeds"] = read[0].pooled
        arguments["negative_pooled_prompt_embeds"] = joined.negative_pooled
    return PipelineInputs(arguments, phases)


def _read(joined: Conditioning, rows: Sequence[Strengths]) -> Conditioning:
    weighted = joined.with_weights([row.regions or {} for row in rows])
    return weighted.before_merge([row.regions is None for row in rows])


def _of_the_loop(read: Conditioning, *, guidance: bool) -> dict[str, Tensor]:
    tensors = {"prompt_embeds": read.merged_embeds(guidance=guidance)}
    pooled = read.merged_pooled(guidance=guidance)
    return tensors if pooled is None else {**tensors, "add_text_embeds": pooled}


def _tokens(parts: Sequence[Embeddings], weights: Sequence[float], *, guidance: bool) -> Float[Tensor, "n t d"]:
    """Identity tokens of a batch: weight 0 is nobody, 1 the person."""
    person, nobody = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("identity_tokens", "negative_identity_tokens")
    )
    if any(weight != 1 for weight in weights):
        person = torch.lerp(nobody, person, person.new_tensor(weights)[:, None, None])
    return torch.cat([nobody, person]) if guidance else person
