"""Fresh adapter layers that see differences between people.

A recogniser's embeddings lie in a small cloud far from zero (0.05 per dimension around a mean of norm 1.3), and so do
its hidden states: with ordinary weights every person gives almost the same tokens, and a U-Net that trained for 70,000
samples on such tokens had learnt nobody. Here the data's mean and spread are folded into the first linear layers, and
the identity tokens begin with the coordinates that the identity prior says matter.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from consistentid.training.embedded.store import References
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.step import TrainingModels

_ROWS = 20_000  # enough for a mean and a standard deviation


@torch.no_grad()
def standardise_inputs(models: TrainingModels, references: References, prior: IdentityPrior) -> None:
    """Replace the layers that read identity embeddings, whole and region features by fresh, standardising ones."""
    projector: Any = models.adapter.projector
    _standardise(projector.proj.net[0].proj, references.identity)
    _pass_through(projector, prior)
    _standardise(projector.proj_in, references.whole)
    _standardise(models.adapter.facial_encoder.visual_projection.proj_in, references.regions[references.present])


def _pass_through(projector: Any, prior: IdentityPrior) -> None:
    """Let every identity token begin as another rotation of the person's coordinates.

    gelu(x) - gelu(-x) = x carries them through the hidden layer; the blocks after it begin with a small voice.
    """
    first, second = projector.proj.net[0].proj, projector.proj.net[2]
    count = min(prior.coordinates.shape[1], first.out_features // 4)
    read = prior.coordinates[:, :count].T
    for rows, sign in ((slice(0, count), 1), (slice(count, 2 * count), -1)):
        first.weight[rows] = sign * read
        first.bias[rows] = -sign * (read @ prior.centre)
    rotation = torch.randn(second.out_features, count) * count**-0.5
    second.weight.mul_(0.2)
    second.weight[:, : 2 * count] = torch.cat([rotation, -rotation], dim=1)
    second.bias.normal_(0, 0.5)
    for block in projector.layers:
        block.attn.to_out[0].weight.mul_(0.3)
        block.ff[1].net[2].weight.mul_(0.3)
    projector.proj_out.weight.normal_(0, projector.proj_out.in_features**-0.5)


def _standardise(layer: nn.Linear, inputs: Float[Tensor, "*rows d"]) -> None:
    """Fresh weights after which (inputs - mean) / std has unit variance."""
    rows = inputs.flatten(0, -2)
    rows = rows[:: max(1, len(rows) // _ROWS)].float()
    std = rows.std(0).clamp(min=1e-3)
    layer.weight.copy_(torch.randn(layer.weight.shape) * layer.in_features**-0.5 / std)
    layer.bias.copy_(-layer.weight @ rows.mean(0))
