"""What one region's token changes in a prediction, beside what the prior expects of that region's image.

Everything else being equal, nothing but the token can make the difference. The noise loss and the prior's other losses
leave it to the identity tokens as well, which know the faces of training by heart.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.faces.regions import REGION_NAMES
from consistentid.training.losses import clean_latents
from consistentid.training.prediction import TrainingModels, predict
from consistentid.training.told_losses import Seen

_READILY = {"face": 0.0, "ears": 0.7, "eyes": 1.5, "nose": 0.6, "mouth": 1.3}


def omission_loss(
    models: TrainingModels,
    seen: Seen,
    order: Float[Tensor, "b n"],
    *,
    count: int,
    weights: Float[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """How far the difference is from what the prior expects; 1: the tokens change nothing.

    Args:
        models: with a prior that knows what images of regions show.
        seen: what was predicted with all tokens that are kept.
        order: uniform in 0..1; the largest says which region of a sample is left out.
        count: of samples that are predicted again, at most.
        weights: of the tokens, in `seen`.
    """
    assert models.prior is not None  # where the configuration asks for this
    appears = seen.kept.told(seen.told).appears
    assert appears is not None  # as above
    rows, regions = chosen(appears, order, count=count)
    if not len(rows):
        return 0 * seen.clean.sum()
    batch, kept, told = seen.batch.rows(rows), seen.kept.rows(rows), seen.told.rows(rows)
    noisy, timesteps = seen.noisy[rows], seen.timesteps[rows]
    without = replace(kept, regions=kept.regions.scatter(1, regions[:, None], False))
    prediction = predict(models, batch, without, noisy, timesteps, weights=None if weights is None else weights[rows])
    change = seen.clean[rows] - clean_latents(models.scheduler, prediction, noisy, timesteps)
    alphas = models.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    return models.prior.contrast(change, noisy, alphas, kept.told(told), without.told(told), relative=True)


def chosen(
    allowed: Bool[Tensor, "b n"], order: Float[Tensor, "b n"], *, count: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Up to `count` samples, and an allowed region of each."""
    readily = torch.tensor([_READILY[name] for name in REGION_NAMES], device=order.device)
    best = (order * readily * allowed).max(1)
    rows: Tensor = best.values.topk(min(count, int((best.values > 0).sum()))).indices
    return rows, best.indices[rows]
