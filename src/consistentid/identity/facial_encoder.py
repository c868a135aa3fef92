"""FacialEncoder: one token per region from its image, fused with the marked word's text embedding.

Section 3.2 of arXiv:2404.16771; the fusion follows FastComposer (arXiv:2305.10431, section 3). The only network
of the method that the host libraries do not have. State-dict keys are those of the released checkpoints.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from consistentid.identity.config import HEAD_WIDTH, AdapterConfig


class _PerceiverAttention(nn.Module):
    """Latents attend to the image and to themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, image: Float[Tensor, "n t w"], latents: Float[Tensor, "n q w"]) -> Float[Tensor, "n q w"]:
        image, latents = self.norm1(image), self.norm2(latents)
        keys, values = self.to_kv(torch.cat([image, latents], dim=1)).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            self._split(self.to_q(latents)), self._split(keys), self._split(values)
        )
        output: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return output

    def _split(self, x: Float[Tensor, "n t w"]) -> Float[Tensor, "n h t c"]:
        return x.unflatten(-1, (self.heads, HEAD_WIDTH)).transpose(1, 2)


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


class _Perceiver(nn.Module):
    """Hidden states of an image (n, t, image_dim) -> one token (n, text_dim)."""

    def __init__(self, image_dim: int, text_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.proj_in = nn.Linear(image_dim, width)
        self.proj_out = nn.Linear(width, text_dim)
        self.norm_out = nn.LayerNorm(text_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([_PerceiverAttention(width), _feed_forward(width)]) for _ in range(depth)
        )

    def forward(self, image: Float[Tensor, "n t di"]) -> Float[Tensor, "n d"]:
        latents = self.latents.expand(len(image), -1, -1)
        image = self.proj_in(image)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            latents = latents + attention(image, latents)
            latents = latents + feed_forward(latents)
        token: Tensor = self.norm_out(self.proj_out(latents))[:, 0]
        return token


class _MLP(nn.Module):
    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(dim_in)
        self.fc1 = nn.Linear(dim_in, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "n di"]) -> Float[Tensor, "n d"]:
        output: Tensor = self.fc2(F.gelu(self.fc1(self.layernorm(x))))
        return output


class _Fuse(nn.Module):
    """Word embedding and region token -> the embedding that replaces the word's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp1 = _MLP(2 * dim, dim)
        self.mlp2 = _MLP(dim, dim)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, word: Float[Tensor, "n d"], region: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        x = word + self.mlp1(torch.cat([word, region], dim=-1))
        x = x + self.mlp2(x)
        output: Tensor = self.layer_norm(x)
        return output


class FacialEncoder(ModelMixin, ConfigMixin):
    """Replaces the text embedding of every marked word by one that also knows the region's image.

    Args:
        image_dim: channels of the image encoder's hidden states.
        text_dim: width of the text embeddings.
        width: width of the perceiver, a multiple of 64.
        depth: number of perceiver layers.
    """

    @register_to_config
    def __init__(self, *, image_dim: int = 1280, text_dim: int = 768, width: int = 1024, depth: int = 8) -> None:
        super().__init__()
        self.visual_projection = _Perceiver(image_dim, text_dim, width, depth)
        self.fuse_module = _Fuse(text_dim)

    @classmethod
    def from_adapter_config(cls, config: AdapterConfig) -> "FacialEncoder":
        """An encoder with fresh weights of the adapter's sizes."""
        return cls(
            image_dim=config.image_dim,
            text_dim=config.text_dim,
            width=config.facial_width,
            depth=config.facial_depth,
        )

    def forward(
        self,
        text_embeddings: Float[Tensor, "b l d"],
        region_features: Float[Tensor, "b n t di"],
        positions: Int[Tensor, "b n"],
        valid: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "b l d"]:
        """Fuse regions into a batch of texts.

        Args:
            text_embeddings: output of the text encoder(s).
            region_features: hidden states of up to n region images per sample.
            positions: index of each region's marked word in the text.
            valid: which of the n regions exist; the others' features and positions are ignored.

        Returns:
            The text embeddings with those at valid positions replaced.
        """
        sample, slot = torch.nonzero(valid, as_tuple=True)
        if len(sample) == 0:
            return text_embeddings
        return self.fuse(text_embeddings, self.region_tokens(region_features[sample, slot]), positions, valid)

    def region_tokens(self, features: Float[Tensor, "n t di"]) -> Float[Tensor, "n d"]:
        """The token of each region, which does not depend on the text."""
        tokens: Tensor = self.visual_projection(features)
        return tokens

    def fuse(
        self,
        text_embeddings: Float[Tensor, "b l d"],
        tokens: Float[Tensor, "n d"],
        positions: Int[Tensor, "b r"],
        valid: Bool[Tensor, "b r"],
    ) -> Float[Tensor, "b l d"]:
        """Put region tokens into texts.

        Args:
            text_embeddings: output of the text encoder(s).
            tokens: one for every valid slot, row by row.
            positions: see `forward`.
            valid: likewise.
        """
        sample, slot = torch.nonzero(valid, as_tuple=True)
        where = positions[sample, slot]
        words = text_embeddings[sample, where]
        fused = self.fuse_module(words, tokens)
        return text_embeddings.index_put((sample, where), fused.to(text_embeddings.dtype))
