"""The identity prior of the stores: what embeddings, words and region images say about latents."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.dataset.samples import Told
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.store import (
    EXPRESSIONS,
    LATENT,
    MIXED_REGIONS,
    PRIOR_WORDS,
    VOCABULARY,
    References,
    Targets,
)
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.latent_regression import LatentRegression
from consistentid.training.region_appearance import RegionAppearance, appearance_of

_APPEARANCE_CHUNK = 100  # photos
_HABITUAL = (1, 2)  # of `PRIOR_WORDS`, what people have; backgrounds they do not have


def fit_prior(
    targets: Targets, references: References, latents: Float[Tensor, "n v 8 16 16"], *, appearance: bool = False
) -> IdentityPrior:
    """What embeddings of the references and words say about the latents of the targets that show one photo each.

    Args:
        targets: what is drawn.
        references: of whom.
        latents: of the targets.
        appearance: whether it also says what the images of regions show.
    """
    shown = targets.regions[:, : targets.plain].float().mean((0, 1))
    mixed = torch.tensor([name in MIXED_REGIONS for name in REGION_NAMES])
    words = targets.words[:, : targets.plain, PRIOR_WORDS].long()
    data = (references.identity[:, 0], latents[:, : targets.plain], words)
    regression = LatentRegression.fit(
        *data,
        choices=[len(VOCABULARY[column]) - 1 for column in PRIOR_WORDS],
        habitual=[column in _HABITUAL for column in PRIOR_WORDS],
        face=((shown[REGION_NAMES.index("face")] - 0.1) / 0.5).clamp(0, 1),
        places=(2 * shown * mixed[:, None, None]).clamp(max=1),
    )
    told = [Told.of_people(data[0], words[:, v], regions=len(REGION_NAMES)) for v in range(words.shape[1])]
    if not appearance:
        return IdentityPrior.around(regression, told, data[1])
    looks, shown = _appearances(references)
    fitted = _fit_appearance(regression, told, data[1], looks, shown, smiles=_smiling(words))
    views = [min(v % 2, looks.shape[1] - 1) for v in range(len(told))]  # mirrored as the target is
    seen = [
        replace(one, appearance=looks[:, view], appears=shown[:, view]) for one, view in zip(told, views, strict=True)
    ]
    return IdentityPrior.around(regression, seen, data[1], appearance=fitted)


def _appearances(references: References) -> tuple[Float[Tensor, "n r 5 k"], Bool[Tensor, "n r 5"]]:
    """What the regions look like in the views that do not contradict the target, and which are there."""
    half = references.regions.shape[1] // 2
    rows = torch.cat([appearance_of(photos[:, :half]) for photos in references.regions.split(_APPEARANCE_CHUNK)])
    return rows, references.present[:, :half]


def _fit_appearance(
    regression: LatentRegression,
    told: Sequence[Told],
    latents: Float[Tensor, "n v c h w"],
    looks: Float[Tensor, "n r 5 k"],
    shown: Bool[Tensor, "n r 5"],
    *,
    smiles: Bool[Tensor, " n"],
) -> RegionAppearance:
    """On targets that are mirrored as the reference is: every second one."""
    rest = latents.float() - torch.stack([regression.expected(one) for one in told], 1).view(latents.shape)
    views = range(looks.shape[1])
    return RegionAppearance.fit(
        looks.flatten(0, 1),
        shown.flatten(0, 1),
        torch.stack([rest[:, view % 2 :: 2].mean(1) for view in views], 1).flatten(0, 1),
        smiles=smiles.repeat_interleave(len(views)),
        places=regression.places[:, : LATENT**2].view(-1, LATENT, LATENT),
    )


def _smiling(words: Int[Tensor, "n v a"]) -> Bool[Tensor, " n"]:
    """Whose photo smiles."""
    return words[:, 0, PRIOR_WORDS.index(VOCABULARY.index(EXPRESSIONS))] == EXPRESSIONS.index("smiling")
