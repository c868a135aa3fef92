"""Cross-attention maps of a few text tokens, beside the fused attention: for eq. 1, and to see what words see."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.image_processor import IPAdapterMaskProcessor
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

_IDENTITY_KEYS = "processor.to_k_ip.0"


@dataclass
class _Seen:
    """What one layer computed.

    Attributes:
        projected: outputs of its query and key projections.
        identity_keys: of the person's identity tokens, and of those of everybody who gives a region.
        masks: (b, p, h, w) where these act; None: everywhere.
    """

    projected: dict[str, Tensor] = field(default_factory=dict)
    identity_keys: list[Tensor] = field(default_factory=list)
    masks: Tensor | None = None


@dataclass
class AttentionRecorder:
    """A forward pass inside `recording` keeps what the attention layers compute anyway.

    The attention itself stays fused and unchanged. Kept are the outputs of the layers' own projections (LoRA
    included), so gradients reach q, k and their LoRAs, also with gradient checkpointing or sharded weights; the maps
    of the wanted tokens are computed from them afterwards.

    Attributes:
        layers: names of the attention layers, see `cross_attention_layers`.
        identity: keep the keys of the identity tokens too; an adapter must be attached.
    """

    unet: UNet2DConditionModel
    layers: tuple[str, ...]
    identity: bool = False
    _kept: dict[str, _Seen] = field(default_factory=dict, repr=False)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep queries and keys of the last forward pass of this block."""
        self._kept = {name: _Seen() for name in self.layers}
        handles = [handle for name in self.layers for handle in self._watched(name)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watched(self, name: str) -> Iterator[RemovableHandle]:
        layer, seen = self.unet.get_submodule(name), self._kept[name]
        yield layer.register_forward_pre_hook(_beginning(seen), with_kwargs=True)
        for projection in ("to_q", "to_k"):
            yield layer.get_submodule(projection).register_forward_hook(_projected(seen, projection))
        if self.identity:
            yield layer.get_submodule(_IDENTITY_KEYS).register_forward_hook(_identity_keys(seen))

    def maps(self, positions: Int[Tensor, "b n"]) -> Iterator[Float[Tensor, "b h q n"]]:
        """Attention probabilities of the tokens at `positions`, layer by layer, of what was recorded."""
        for name in self.layers:
            layer: Any = self.unet.get_submodule(name)
            kept = self._kept[name].projected
            yield token_columns(kept["to_q"], kept["to_k"], positions, heads=layer.heads, scale=layer.scale)

    def identity_maps(self) -> Iterator[Float[Tensor, "b h q t"]]:
        """Attention probabilities of the identity tokens, which compete among themselves only, layer by layer.

        In the place of a region that somebody else gives, they are those of the giver's tokens. Layers that skipped
        them, because their weight is 0, are left out.
        """
        for name in self.layers:
            layer: Any = self.unet.get_submodule(name)
            seen = self._kept[name]
            query = seen.projected["to_q"]
            columns = []
            for keys in (each.flatten(1, -2) for each in seen.identity_keys):
                every = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
                columns.append(token_columns(query, keys, every, heads=layer.heads, scale=layer.scale))
            if columns and seen.masks is not None:
                places = [_in_pixels(mask, query) for mask in seen.masks.unbind(1)]
                yield torch.stack([place * one for place, one in zip(places, columns, strict=True)]).sum(0)
            elif columns:
                yield columns[0]


def _beginning(seen: _Seen) -> Callable[..., None]:
    def forget(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        masks = kwargs.get("ip_adapter_masks")
        seen.projected, seen.identity_keys = {}, []
        seen.masks = None if masks is None else masks[0].clone()  # the next phase writes into it

    return forget


def _projected(seen: _Seen, projection: str) -> Callable[..., None]:
    def keep(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        seen.projected[projection] = output

    return keep


def _identity_keys(seen: _Seen) -> Callable[..., None]:
    def keep(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        seen.identity_keys.append(output)

    return keep


def _in_pixels(mask: Float[Tensor, "b h w"], query: Float[Tensor, "b q d"]) -> Float[Tensor, "b 1 q 1"]:
    """A mask where a layer reads it, as diffusers' attention does."""
    smaller = IPAdapterMaskProcessor.downsample(mask, len(mask), query.shape[1], 1)
    return smaller[:, None].to(query)


def cross_attention_layers(
    unet: UNet2DConditionModel, *, largest: int | None = None, blocks: Collection[str] | None = None
) -> tuple[str, ...]:
    """Names of the cross-attention layers.

    Args:
        unet: their U-Net.
        largest: only those whose maps are at most so many pixels wide.
        blocks: only those of these blocks: mid_block, down_blocks.2, up_blocks, ...
    """
    depth = {f"down_blocks.{i}": i for i in range(len(unet.down_blocks))}
    count = len(unet.up_blocks)
    depth |= {f"up_blocks.{i}": count - 1 - i for i in range(count)} | {"mid_block": count - 1}
    names = []
    for name, _ in unet.named_modules():
        if name.endswith("attn2") and (blocks is None or any(f"{name}.".startswith(f"{block}.") for block in blocks)):
            block = next(key for key in depth if name.startswith(key))
            if largest is None or unet.config.sample_size >> depth[block] <= largest:
                names.append(name)
    return tuple(names)


def token_columns(
    query: Float[Tensor, "b q d"],
    key: Float[Tensor, "b l d"],
    positions: Int[Tensor, "b n"],
    *,
    heads: int,
    scale: float,
) -> Float[Tensor, "b h q n"]:
    """Attention probabilities, softmax over all l tokens, for the tokens at `positions`.

    Only these columns are kept for the backward pass, which computes the others once more.
    """
    if query.requires_grad and torch.is_grad_enabled():
        columns: Tensor = checkpoint(
            _columns, query, key, positions, heads, scale, use_reentrant=False, preserve_rng_state=False
        )
        return columns
    return _columns(query, key, positions, heads, scale)


def _columns(query: Tensor, key: Tensor, positions: Tensor, heads: int, scale: float) -> Tensor:
    query, key = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key))
    scores = (query @ key.transpose(2, 3)).float() * scale  # b h q l
    where = positions[:, None, None, :].expand(*scores.shape[:3], -1)
    return torch.exp(scores.gather(3, where) - torch.logsumexp(scores, dim=3, keepdim=True))


def outside_less_inside(maps: Float[Tensor, "b h q n"], masks: Float[Tensor, "b n q"]) -> Float[Tensor, "b h n"]:
    """Eq. 1 of arXiv:2404.16771 for every token: its mean attention outside its region minus inside, from -1 to 1.

    Each map is divided by its maximum, as in the release, so that the number does not depend on how many pixels there
    are.

    Args:
        maps: attention probabilities over heads and pixels.
        masks: regions at the same resolution, 0..1.
    """
    maps = maps.float().transpose(2, 3)  # b h n q
    maps = maps / (maps.amax(-1, keepdim=True) + 1e-5)
    inside = masks[:, None].to(maps.dtype)
    outside = 1 - inside
    # Each mean is over its own pixels.
    mean_outside = (maps * outside).sum(-1) / outside.sum(-1).clamp(min=1e-6)
    mean_inside = (maps * inside).sum(-1) / inside.sum(-1).clamp(min=1e-6)
    return mean_outside - mean_inside
