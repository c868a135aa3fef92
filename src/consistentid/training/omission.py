"""What one region's token changes in a prediction: beside what the prior expects of that region's image, and where.

Everything else being equal, nothing but the token can make the difference. The noise loss and the prior's other losses
leave it to the identity tokens as well, which know the faces of training by heart.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.faces.regions import REGION_NAMES
from consistentid.training.conditions import Kept
from consistentid.training.losses import clean_latents
from consistentid.training.prediction import TrainingModels, predict
from consistentid.training.step_config import StepConfig
from consistentid.training.told_losses import Seen

_READILY = {"face": 1.0, "ears": 0.7, "eyes": 1.5, "nose": 0.6, "mouth": 1.3}
_FACE = REGION_NAMES.index("face")
_OF_THE_FACE, _OF_OTHERS = 1.5, 0.5  # what spill counts; the image of the face has eyes, nose and mouth in it
_LEAST = 1e-6


@dataclass(frozen=True)
class Omitted:
    """Samples that are predicted once more, each without one region's token.

    Attributes:
        seen: of these samples, what was predicted with the token.
        without: what is kept without it.
        regions: which it is.
        change: what the token makes of the predicted clean latents.
    """

    seen: Seen
    without: Kept
    regions: Int[Tensor, " k"]
    change: Float[Tensor, "k c h w"]


def omission_losses(
    models: TrainingModels,
    seen: Seen,
    order: Float[Tensor, "b n"],
    *,
    config: StepConfig,
    weights: Float[Tensor, "b n"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """How far the change is from what the prior expects (1: it is nothing), and how much of it is in the wrong place.

    The overall identity says what is expected of the face's image, so that of its token only the place is asked, where
    `config.spill_weight` says so.

    Args:
        models: with a prior that knows what images of regions show.
        seen: what was predicted with all tokens that are kept.
        order: uniform in 0..1; the largest says which region of a sample is left out.
        config: how many samples are predicted again, at most.
        weights: of the tokens, in `seen`.
    """
    appears = seen.kept.told(seen.told).appears
    assert appears is not None  # where the configuration asks for this
    allowed = appears.clone()
    allowed[:, _FACE] &= config.spill_weight > 0
    rows, regions = chosen(allowed, order, count=config.omissions)
    if not len(rows):
        return dict.fromkeys(("omission", "spill"), 0 * seen.clean.sum())
    omitted = _omitted(models, seen.rows(rows), regions, None if weights is None else weights[rows])
    return {"omission": _expected(models, omitted), "spill": _spilt(omitted)}


def _omitted(
    models: TrainingModels, seen: Seen, regions: Int[Tensor, " k"], weights: Float[Tensor, "k n"] | None
) -> Omitted:
    without = replace(seen.kept, regions=seen.kept.regions.scatter(1, regions[:, None], False))
    prediction = predict(models, seen.batch, without, seen.noisy, seen.timesteps, weights=weights)
    clean = clean_latents(models.scheduler, prediction, seen.noisy, seen.timesteps)
    return Omitted(seen, without, regions, seen.clean - clean)


def _expected(models: TrainingModels, omitted: Omitted) -> Float[Tensor, ""]:
    """Mean distance from what the prior expects, of all regions but the face."""
    assert models.prior is not None  # where the configuration asks for this
    rows = torch.nonzero(~_is_face(omitted.regions))[:, 0]
    if not len(rows):
        return 0 * omitted.change.sum()
    seen, without = omitted.seen.rows(rows), omitted.without.rows(rows)
    alphas = models.scheduler.alphas_cumprod.to(seen.timesteps.device)[seen.timesteps]
    told = seen.kept.told(seen.told), without.told(seen.told)
    return models.prior.contrast(omitted.change[rows], seen.noisy, alphas, *told, relative=True)


def _spilt(omitted: Omitted) -> Float[Tensor, ""]:
    """Mean share of the changes in the wrong place."""
    counts = torch.where(_is_face(omitted.regions), _OF_THE_FACE, _OF_OTHERS)
    return (counts * spilt(omitted.change, omitted.seen.batch.region_masks, omitted.regions)).mean()


def spilt(
    change: Float[Tensor, "k c h w"], masks: Float[Tensor, "k n h w"], regions: Int[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Which share of a region's change in the face and the ears is where other regions are; 0: all is in its place.

    Args:
        change: of latents.
        masks: of all regions; eyes, nose and mouth, which that of the face has in it, are not its place.
        regions: which one is to change.
    """
    each = torch.arange(len(regions), device=regions.device)
    own = masks[each, regions]
    others = masks.scatter(1, regions.view(-1, 1, 1, 1).expand_as(masks[:, :1]), 0.0).amax(1)
    own = torch.where(_is_face(regions)[:, None, None], own * (1 - others), own)
    elsewhere, energy = others * (1 - own), change.square().sum(1)
    inside, outside = ((energy * where).sum((1, 2)) for where in (own, elsewhere))
    return outside / (inside + outside).clamp(min=_LEAST)


def _is_face(regions: Int[Tensor, " k"]) -> Bool[Tensor, " k"]:
    return regions == _FACE


def chosen(
    allowed: Bool[Tensor, "b n"], order: Float[Tensor, "b n"], *, count: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Up to `count` samples, and an allowed region of each."""
    readily = torch.tensor([_READILY[name] for name in REGION_NAMES], device=order.device)
    best = (order * readily * allowed).max(1)
    rows: Tensor = best.values.topk(min(count, int((best.values > 0).sum()))).indices
    return rows, best.indices[rows]
