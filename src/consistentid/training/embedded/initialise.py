"""Fresh adapter layers that see differences between people.

A recogniser's embeddings lie in a small cloud far from zero (0.05 per dimension around a mean of norm 1.3), and so do
its hidden states: with ordinary weights every person gives almost the same tokens, and a U-Net that trained for 70,000
samples on such tokens had learnt nobody. Here the data's mean and spread are folded into the first linear layers.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from consistentid.training.embedded.store import References
from consistentid.training.step import TrainingModels

_ROWS = 20_000  # enough for a mean and a standard deviation


@torch.no_grad()
def standardise_inputs(models: TrainingModels, references: References) -> None:
    """Replace the layers that read identity embeddings, whole and region features by fresh, standardising ones."""
    projector: Any = models.adapter.projector
    _standardise(projector.proj.net[0].proj, references.identity)
    _standardise(projector.proj_in, references.whole)
    _standardise(models.adapter.facial_encoder.visual_projection.proj_in, references.regions[references.present])


def _standardise(layer: nn.Linear, inputs: Float[Tensor, "*rows d"]) -> None:
    """Fresh weights after which (inputs - mean) / std has unit variance."""
    rows = inputs.flatten(0, -2)
    rows = rows[:: max(1, len(rows) // _ROWS)].float()
    std = rows.std(0).clamp(min=1e-3)
    layer.weight.copy_(torch.randn(layer.weight.shape) * layer.in_features**-0.5 / std)
    layer.bias.copy_(-layer.weight @ rows.mean(0))
