"""Fresh adapter layers that see differences between people.

A recogniser's embeddings lie in a small cloud far from zero (0.05 per dimension around a mean of norm 1.3), and so do
its hidden states: with ordinary weights every person gives almost the same tokens, and a U-Net that trained for 70,000
samples on such tokens had learnt nobody. Here the data's mean and spread are folded into the first linear layers, and
the identity tokens begin with the coordinates that the identity prior says matter.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.training.embedded.store import References
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.prediction import TrainingModels

_ROWS = 20_000  # enough for a mean and a standard deviation
_PEOPLE = 300  # likewise for tokens
_VOICE = 2.0  # of the region in a fused token, where the word's is 1


@torch.no_grad()
def standardise_inputs(models: TrainingModels, references: References, prior: IdentityPrior) -> None:
    """Replace the layers that read identity embeddings, whole and region features by fresh, standardising ones."""
    projector: Any = models.adapter.projector
    _standardise(projector.proj.net[0].proj, references.identity)
    _pass_through(projector, prior)
    _standardise(projector.proj_in, references.whole)
    awaken(models.adapter.facial_encoder, references)


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
def awaken(encoder: FacialEncoder, references: References) -> None:
    """Let tokens of fresh weights differ between people, by as much as words differ from each other.

    What all regions have in common is taken out where the places of an image are averaged; what one region has in
    common, where the token is made. With ordinary weights, fused tokens of people differed by 2 to 5 % of their norm.
    """
    perceiver: Any = encoder.visual_projection
    _standardise(perceiver.proj_in, references.regions[references.present])
    every = max(1, len(references.present) // _PEOPLE)
    present = references.present[::every, 0]
    image = perceiver.proj_in(references.regions[::every, 0][present].float())
    perceiver.latents.mul_(0.3)
    latents = perceiver.latents.expand(len(image), -1, -1)
    for attention, feed_forward in perceiver.layers:
        attention.norm1.bias.sub_(attention.norm1(image).mean((0, 1)))
        attention.to_out.weight.div_(attention(image, latents).std(0).mean())
        latents = latents + attention(image, latents)
        latents = latents + feed_forward(latents)
    _centre(perceiver.proj_out, latents[:, 0], torch.nonzero(present)[:, 1])
    tokens = perceiver.norm_out(perceiver.proj_out(latents))[:, 0]
    voice = encoder.fuse_module.mlp1
    fused = torch.cat([torch.randn(1, tokens.shape[1]).expand_as(tokens), tokens], dim=1)
    voice.fc2.weight.mul_(_VOICE / voice(fused).std(0).mean())
    voice.fc2.bias.sub_(voice(fused).mean(0))


def _centre(layer: nn.Linear, inputs: Float[Tensor, "m d"], groups: Int[Tensor, " m"]) -> None:
    """Make the outputs' mean zero in every group, in weights and bias."""
    means = torch.stack([layer(inputs[groups == group]).mean(0) for group in groups.unique()])
    common = means.mean(0)
    apart = torch.linalg.svd(means - common, full_matrices=False)[2][: len(means) - 1]
    layer.weight.sub_(apart.T @ (apart @ layer.weight))
    layer.bias.copy_(layer.bias - common - apart.T @ (apart @ (layer.bias - common)))


def _standardise(layer: nn.Linear, inputs: Float[Tensor, "*rows d"]) -> None:
    """Fresh weights after which (inputs - mean) / std has unit variance."""
    rows = inputs.flatten(0, -2)
    rows = rows[:: max(1, len(rows) // _ROWS)].float()
    std = rows.std(0).clamp(min=1e-3)
    layer.weight.copy_(torch.randn(layer.weight.shape) * layer.in_features**-0.5 / std)
    layer.bias.copy_(-layer.weight @ rows.mean(0))
