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
from consistentid.identity.control import IDENTITY, Strengths
from consistentid.identity.mixing import MixedFace, Shares
from consistentid.identity.region_places import Places, place_masks, shares_of_givers


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Everything that depends on photo and prompt.

    The identity tokens do not change from step to step, so the projector runs once per photo, not once per step.

    Attributes:
        conditioning: of b images.
        identity_tokens: of the person, 4 for each photo with tokens of its own.
        negative_identity_tokens: of nobody, for the guidance branch.
        givers: the regions that another face gives.
        given_tokens: identity tokens of that face, for each of them.
    """

    conditioning: Conditioning
    identity_tokens: Float[Tensor, "b t d"]
    negative_identity_tokens: Float[Tensor, "b t d"]
    givers: tuple[str, ...]
    given_tokens: Float[Tensor, "r t d"]


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
    given = _given(face, conditioning.regions[0])
    with idle, torch.no_grad():
        tokens = adapter.identity_tokens(*identities).flatten(0, 1)[None]
        negative = adapter.identity_tokens(conditioning.negative_identity, conditioning.negative_image_features)
        theirs = [adapter.identity_tokens(*conditioner.identities(giver)) for giver in given.values()]
    rounds = tokens.shape[1] // negative.shape[1]  # tokens that are there twice are read as if they were there once
    return Embeddings(
        conditioning,
        tokens,
        negative.repeat(1, rounds, 1),
        tuple(given),
        torch.cat([tokens[:0], *(one.repeat(1, rounds, 1) for one in theirs)]),
    )


def _given(face: Face, regions: Sequence[str]) -> dict[str, MixedFace]:
    """Who gives the regions that do not come from who gives the overall identity."""
    if not isinstance(face, MixedFace):
        return {}
    usual = _sources(face.shares(IDENTITY))
    parts = {name: face.parts[name] for name in regions if name in face.parts}
    return {name: MixedFace(shares) for name, shares in parts.items() if _sources(shares) != usual}


def _sources(shares: Shares) -> list[tuple[int, float]]:
    return [(id(face), share) for face, share in shares]


@dataclass(frozen=True, eq=False)
class Phase:
    """What the U-Net reads until the next phase.

    Attributes:
        tensors: of the pipeline's loop (`prompt_embeds`, on SDXL also `add_text_embeds`); with guidance the negative
            half comes first.
        tokens: (n, 1 + r, t, d) identity tokens of every row of the U-Net's batch: of the person, and of whoever gives
            one of r regions.
        masks: (n, 1 + r, h, w) where these act; None: the person's everywhere.
    """

    tensors: dict[str, Tensor]
    tokens: Float[Tensor, "n p t d"]
    masks: Float[Tensor, "n p h w"] | None = None


@dataclass(frozen=True, eq=False)
class PipelineInputs:
    """What a pipeline's run needs.

    Attributes:
        arguments: of the pipeline's call.
        phases: by their first step; the first one begins at 0 and is what the arguments hold.
    """

    arguments: dict[str, Any]
    phases: dict[int, Phase]

    @property
    def masks(self) -> Float[Tensor, "n p h w"] | None:
        """Where identity tokens act, as the U-Net reads it; None: they all act everywhere."""
        kwargs = self.arguments.get("cross_attention_kwargs")
        return None if kwargs is None else kwargs["ip_adapter_masks"][0]


def pipeline_inputs(
    parts: Sequence[Embeddings],
    strengths: Mapping[int, Sequence[Strengths]],
    *,
    guidance: bool,
    device: torch.device,
    dtype: torch.dtype,
    places: Places | None = None,
    grid: tuple[int, int] = (1, 1),
) -> PipelineInputs:
    """Join the embeddings of a batch.

    Args:
        parts: of every image.
        strengths: what acts in every image, by first step; see `control.phases`.
        guidance: whether the pipeline runs the guidance branch; its half comes first in every joined tensor.
        device: where the pipeline computes.
        dtype: of the U-Net, for the tokens.
        places: of the regions; without, whoever gives one gives its token alone.
        grid: height and width of what the U-Net sees, in latents.
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
            tokens[weights] = _tokens(parts, weights, guidance=guidance, placed=bool(places)).to(device, dtype)
        masks = _masks(parts, rows, guidance=guidance, places=places, grid=grid)
        masks = None if masks is None else masks.to(device, dtype)
        phases[start] = Phase(_of_the_loop(read[start], guidance=guidance), tokens[weights], masks)
    arguments: dict[str, Any] = {
        "prompt_embeds": read[0].prompt_embeds,
        # Stock pipelines repeat this for every image, as if all were of one person: it only says that there is one.
        "ip_adapter_image_embeds": [torch.zeros(2 if guidance else 1, 1, 1, device=device)],
    }
    if phases[0].masks is not None:
        arguments["cross_attention_kwargs"] = {"ip_adapter_masks": [phases[0].masks.clone()]}
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


def _tokens(
    parts: Sequence[Embeddings], weights: Sequence[float], *, guidance: bool, placed: bool
) -> Float[Tensor, "n p t d"]:
    """Identity tokens of a batch: weight 0 is nobody, 1 the person."""
    givers = max(len(part.givers) for part in parts) if placed else 0
    person = torch.stack([_people(part, givers) for part in parts])
    nobody = torch.stack([part.negative_identity_tokens.expand(1 + givers, -1, -1) for part in parts])
    if any(weight != 1 for weight in weights):
        person = torch.lerp(nobody, person, person.new_tensor(weights)[:, None, None, None])
    return torch.cat([nobody, person]) if guidance else person


def _people(part: Embeddings, givers: int) -> Float[Tensor, "p t d"]:
    """The person and whoever gives regions; the person again where there are fewer than in other rows."""
    missing = part.identity_tokens.expand(max(givers - len(part.givers), 0), -1, -1)
    return torch.cat([part.identity_tokens, part.given_tokens[:givers], missing])


def _masks(
    parts: Sequence[Embeddings],
    strengths: Sequence[Strengths],
    *,
    guidance: bool,
    places: Places | None,
    grid: tuple[int, int],
) -> Float[Tensor, "n p h w"] | None:
    """Where the identity tokens of everybody act."""
    givers = max(len(part.givers) for part in parts)
    if not places or not givers:
        return None
    rows = []
    for part, strength in zip(parts, strengths, strict=True):
        names = [*part.givers, *[""] * (givers - len(part.givers))]  # no name, no place
        weights = [strength.placed.get(name, 0.0) for name in names]
        rows.append(shares_of_givers(place_masks(places, names, grid), weights))
    masks = torch.stack(rows)
    return torch.cat([masks, masks]) if guidance else masks
