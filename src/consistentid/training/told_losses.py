"""Losses on the portrait that the U-Net has in mind, of samples that are told whom to draw: prior and recogniser."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.dataset.samples import Batch, Rows, Told
from consistentid.training.compared import Compared
from consistentid.training.conditions import Kept
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import NoiseScheduler
from consistentid.training.recognition import Recognition
from consistentid.training.step_config import StepConfig
from consistentid.training.teacher import Teacher

_VISIBLE = 0.98  # share of the noise schedule from which on the noisy latents show nothing


@dataclass(frozen=True)
class Seen(Rows):
    """What the prior sees of a step: predicted clean latents, of which noisy ones, and what was told."""

    batch: Batch
    told: Told
    kept: Kept
    clean: Float[Tensor, "b c h w"]
    noisy: Float[Tensor, "b c h w"]
    timesteps: Int[Tensor, " b"]


@dataclass(frozen=True)
class Judged:
    """What the recogniser sees.

    Attributes:
        batch: with what was told.
        kept: of the conditions.
        compared: regions; None: they are not.
        jitter: of the chips.
        clean: predicted latents.
        visible: whether something can be seen in them that is not the face of a stranger's target.
    """

    batch: Batch
    kept: Kept
    compared: Compared | None
    jitter: Float[Tensor, "b 3"]
    clean: Float[Tensor, "b c h w"]
    visible: Bool[Tensor, " b"]


def taught(
    seen: Seen, prior: IdentityPrior | None, scheduler: NoiseScheduler, *, config: StepConfig
) -> dict[str, Tensor]:
    """What the identity prior says."""
    if prior is None or not config.is_taught:
        return {}
    stranger, twins, somebody = seen.batch.stranger, seen.batch.twins, seen.kept.somebody
    teacher = Teacher(prior, scheduler, seen.clean, seen.noisy, seen.timesteps, seen.kept.told(seen.told))
    least = torch.where(stranger, config.stranger_from, config.prior_from)
    follows = somebody & (seen.timesteps >= least * scheduler.config.num_train_timesteps)
    contrasts = somebody & somebody[twins] & stranger
    return {"prior": teacher.follow(follows), "contrast": teacher.contrast(contrasts, twins)}


def visible(
    batch: Batch, timesteps: Int[Tensor, " b"], scheduler: NoiseScheduler, *, config: StepConfig
) -> Bool[Tensor, " b"]:
    """See `Judged.visible`, for noisy latents of the targets."""
    share = timesteps / scheduler.config.num_train_timesteps
    return (share < _VISIBLE) & (~batch.stranger | (share >= config.stranger_from))


def whole(batch: Batch, kept: Kept) -> Bool[Tensor, " b"]:
    """Which samples are told of one person alone."""
    assert batch.told is not None  # wherever something is judged
    return kept.identity & ~batch.told.mixed.any(1)


def recognised(judged: Judged, recognition: Recognition) -> dict[str, Tensor]:
    """What the recogniser says of whom it sees, and of regions that are compared."""
    assert judged.batch.told is not None  # wherever something is judged
    pictures, rows = recognition.pictures(judged.clean), judged.visible & whole(judged.batch, judged.kept)
    identity = recognition.distance(pictures[rows], judged.batch.told.identity[rows], judged.jitter[rows])
    if judged.compared is None:
        return {"identity": identity}
    return {"identity": identity, "regions": _regional(judged, judged.compared, pictures, recognition)}


def _regional(
    judged: Judged, compared: Compared, pictures: Float[Tensor, "b 3 s s"], recognition: Recognition
) -> Float[Tensor, ""]:
    """Mean distance of the compared regions; 0 of none."""
    assert judged.batch.looks is not None  # regions are compared
    rows, regions = torch.nonzero(compared.regions & judged.visible[:, None], as_tuple=True)
    if not len(rows):
        return 0 * pictures.sum()
    looks, outlined = judged.batch.looks.rows(rows), compared.outlined[rows, regions]
    distances = recognition.region_distances(pictures, rows, looks, regions, outlined, judged.jitter[rows])
    return (compared.counts[rows] * distances).mean()
