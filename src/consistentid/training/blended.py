"""Regions that are partly somebody else's: faces of nobody, which cannot be known by heart.

Mixup (arXiv:1710.09412) of the images of regions and of how these are to look.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from consistentid.dataset.samples import Batch
from consistentid.training.compared import Compared


def blended(batch: Batch, compared: Compared | None, shares: Float[Tensor, " b"]) -> Batch:
    """A batch whose compared regions are blends with those of the next sample, where that has them, too.

    Args:
        batch: whose targets nothing looks at.
        compared: the regions.
        shares: of the next sample in each; 0 leaves a sample as it is.
    """
    if compared is None or not shares.any():
        return batch
    looks, told = batch.looks, batch.told
    assert looks is not None  # regions are compared
    assert told is not None
    following = torch.arange(len(batch), device=shares.device).roll(-1)
    share = shares[:, None] * (compared.regions & (batch.valid & looks.known)[following])
    embeddings = F.normalize(looks.embeddings, dim=-1)
    features, embeddings, people = (
        _towards(own, own[following], share) for own in (batch.region_features, embeddings, told.regions)
    )
    looks, told = replace(looks, embeddings=embeddings), replace(told, regions=people)
    return replace(batch, region_features=features, looks=looks, told=told)


def _towards(first: Float[Tensor, "b n ..."], second: Float[Tensor, "b n ..."], share: Float[Tensor, "b n"]) -> Tensor:
    weight = share.view(*share.shape, *[1] * (first.ndim - 2)).to(first.dtype)
    return torch.lerp(first, second, weight)
