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

from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.training.embedded.store import References
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.step import TrainingModels

_ROWS = 20_000  # enough for a mean and a standard deviation
_TOKENS = 1000  # likewise for tokens


@torch.no_grad()
def standardise_inputs(models: TrainingModels, references: References, prior: IdentityPrior) -> None:
    """Replace the layers that read identity embeddings, whole and region features by fresh, standardising ones."""
    projector: Any = models.adapter.projector
    _standardise(projector.proj.net[0].proj, references.identity)
    _pass_through(projector, prior)
    _standardise(projector.proj_in, references.whole)
    awaken(models.adapter.facial_encoder, references.regions[references.present])


def _pass_through(projector: Any, prior: IdentityPrior) -> None:
    """Let every identity token begin as another rotation of the person's coordinates.

    gelu(x) - gelu(-x) = x carries them through the hidden layer; the blocks after it begin with a small voice.
    """
    first, second = projector.proj.net[0].proj, projector.proj.net[2]
    count = min(prior.coordinates.shape[1], first.out_features // 2)
    read = prior.coordinates[:, :count].T
    for rows, sign in ((slice(0, count), 1), (slice(count, 2 * count), -1)):
        first.weight[rows] = sign * read
        first.bias[rows] = -sign * (read @ prior.regression.centre)
    rotation = torch.randn(second.out_features, count) * count**-0.5
    second.weight.mul_(0.2)
    second.weight[:, : 2 * count] = torch.cat([rotation, -rotation], dim=1)
    second.bias.normal_(0, 0.5)
    for block in projector.layers:
        block.attn.to_out[0].weight.mul_(0.3)
        block.ff[1].net[2].weight.mul_(0.3)
    projector.proj_out.weight.normal_(0, projector.proj_out.in_features**-0.5)


@torch.no_grad()
def awaken(encoder: FacialEncoder, regions: Float[Tensor, "m t di"]) -> None:
    """Let tokens of fresh weights differ between people as much as their words differ from each other.

    What all regions have in common is taken out where they are averaged and where the token is made, and people are
    given unit variance after each layer. Before, tokens of different people differed by 3 % of their norm.
    """
    perceiver: Any = encoder.visual_projection
    _standardise(perceiver.proj_in, regions)
    image = perceiver.proj_in(regions[:: max(1, len(regions) // _TOKENS)].float())
    perceiver.latents.mul_(0.3)
    latents = perceiver.latents.expand(len(image), -1, -1)
    for attention, feed_forward in perceiver.layers:
        attention.norm1.bias.sub_(attention.norm1(image).mean((0, 1)))
        attention.to_out.weight.div_(attention(image, latents).std(0).mean())
        latents = latents + attention(image, latents)
        latents = latents + feed_forward(latents)
    perceiver.proj_out.bias.sub_(perceiver.proj_out(latents).mean((0, 1)))
    tokens = perceiver.norm_out(perceiver.proj_out(latents))[:, 0]
    fused = torch.cat([torch.randn_like(tokens), tokens], dim=1)
    voice = encoder.fuse_module.mlp1
    voice.fc2.weight.div_(voice(fused).std(0).mean())
    voice.fc2.bias.sub_(voice(fused).mean(0))


def _standardise(layer: nn.Linear, inputs: Float[Tensor, "*rows d"]) -> None:
    """Fresh weights after which (inputs - mean) / std has unit variance."""
    rows = inputs.flatten(0, -2)
    rows = rows[:: max(1, len(rows) // _ROWS)].float()
    std = rows.std(0).clamp(min=1e-3)
    layer.weight.copy_(torch.randn(layer.weight.shape) * layer.in_features**-0.5 / std)
    layer.bias.copy_(-layer.weight @ rows.mean(0))
