"""A batch of training: tensors only, so that the step does not know where they came from."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """b samples with n = 5 regions.

    Attributes:
        latents: clean latents of the target portraits.
        ids: tokenised facial prompts.
        positions: region tokens in `ids`, in the order of `REGION_NAMES`; 0 where invalid.
        valid: whether the region's word is marked and the reference shows the region.
        identity_embedding: of the reference.
        whole_features: hidden states of the reference's head.
        region_features: hidden states of the reference's regions.
        foreground: the person in the target, at latent resolution.
        region_masks: the regions in the target, at latent resolution.
        target_identity: the recogniser's embedding of the person; for the identity prior.
        region_identity: of the person whose region the reference shows.
        words: which words of the attributes that the prior knows are in the prompt; see `Told.words`.
        stranger: whether the reference shows somebody else than the latents; these only follow the identity prior.
            The first of them has the latents of the first sample that is no stranger, and so on.
    """

    latents: Float[Tensor, "b c h w"]
    ids: Int[Tensor, "b l"]
    positions: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]
    identity_embedding: Float[Tensor, "b d"]
    whole_features: Float[Tensor, "b t di"]
    region_features: Float[Tensor, "b n t di"]
    foreground: Float[Tensor, "b 1 h w"]
    region_masks: Float[Tensor, "b n h w"]
    target_identity: Float[Tensor, "b d"]
    region_identity: Float[Tensor, "b n d"]
    words: Int[Tensor, "b a"]
    stranger: Bool[Tensor, " b"]

    @property
    def twins(self) -> Int[Tensor, " b"]:
        """For each stranger the sample with the same latents that is none; every other sample is its own twin."""
        twins = torch.arange(len(self.stranger))
        twins[self.stranger] = torch.nonzero(~self.stranger)[: int(self.stranger.sum()), 0]
        return twins

    def rows(self, chosen: Bool[Tensor, " b"]) -> Self:
        """The chosen samples."""
        return type(self)(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})
