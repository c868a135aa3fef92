"""Cross-attention maps of the region tokens, taken beside the fused attention, for eq. 1."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass
class AttentionRecorder:
    """Context manager: a forward pass inside `recording` leaves the maps of the region tokens in `maps`.

    The attention itself stays fused and unchanged. For the maps, queries and keys are computed once more from the
    layer's inputs with the layer's own projections (LoRA included), so gradients reach q, k and their LoRAs; only the
    columns of the region tokens are kept.

    Attributes:
        layers: names of the attention layers, see `cross_attention_layers`.
        positions: (b, n) the region tokens of the batch that is being recorded; None: nothing is.
        maps: one (b, heads, pixels, n) tensor per layer of the last forward pass.
    """

    unet: UNet2DConditionModel
    layers: tuple[str, ...]
    positions: Int[Tensor, "b n"] | None = None
    maps: list[Float[Tensor, "b h q n"]] = field(default_factory=list)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._handles = [
            self.unet.get_submodule(name).register_forward_hook(self._hook(), with_kwargs=True) for name in self.layers
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextmanager
    def recording(self, positions: Int[Tensor, "b n"]) -> Iterator[None]:
        """Record the forward passes of this block, for a batch with these region tokens."""
        self.positions = positions
        self.maps.clear()
        try:
            yield
        finally:
            self.positions = None

    def _hook(self) -> Callable[..., None]:
        def keep(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Tensor) -> None:
            if self.positions is not None:
                context = kwargs["encoder_hidden_states"]
                text = context[0] if isinstance(context, tuple) else context
                hidden = args[0] if args else kwargs["hidden_states"]
                self.maps.append(region_columns(layer, hidden, text, self.positions))

        return keep


def cross_attention_layers(unet: UNet2DConditionModel, *, largest: int | None = None) -> tuple[str, ...]:
    """Names of the cross-attention layers, or of those whose maps are at most `largest` pixels wide."""
    depth = {f"down_blocks.{i}": i for i in range(len(unet.down_blocks))}
    count = len(unet.up_blocks)
    depth |= {f"up_blocks.{i}": count - 1 - i for i in range(count)} | {"mid_block": count - 1}
    names = []
    for name, _ in unet.named_modules():
        if name.endswith("attn2"):
            block = next(key for key in depth if name.startswith(key))
            if largest is None or unet.config.sample_size >> depth[block] <= largest:
                names.append(name)
    return tuple(names)


def region_columns(
    layer: nn.Module, hidden: Float[Tensor, "b q c"], text: Float[Tensor, "b l d"], positions: Int[Tensor, "b n"]
) -> Float[Tensor, "b h q n"]:
    """Attention probabilities of an `Attention` layer, softmax over all text tokens, for the tokens at `positions`."""
    heads: int = layer.heads  # type: ignore[assignment]
    query = layer.to_q(hidden).unflatten(-1, (heads, -1)).transpose(1, 2)  # type: ignore[operator]
    key = layer.to_k(text).unflatten(-1, (heads, -1)).transpose(1, 2)  # type: ignore[operator]
    scores = (query @ key.transpose(2, 3)).float() * layer.scale  # b h q l
    where = positions[:, None, None, :].expand(*scores.shape[:3], -1)
    return torch.exp(scores.gather(3, where) - torch.logsumexp(scores, dim=3, keepdim=True))
