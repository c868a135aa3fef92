"""Keys and values of cross-attention, computed once for as long as the text and the identity tokens stay the same.

Neither changes from one denoising step to the next, except the text at the merge step, so all steps but two of a run
would compute again what they know.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from consistentid.identity.layout import attention_layers

_KEPT = 16  # inputs of one layer


@contextmanager
def kept_keys_and_values(unet: nn.Module) -> Iterator[None]:
    """Let the key and value layers of a U-Net's cross-attention remember their last result, for one denoising run.

    They compute anew when they are given another tensor, or one that was changed, so the result is bit-equal. Weights
    must not change meanwhile. Compiled blocks are left alone: they cannot look at tensors by identity.
    """
    replaced = []
    for layer in _key_and_value_layers(unet):
        replaced.append((layer, layer.__dict__.get("forward")))  # accelerate's hooks are there, if any
        layer.forward = _remembering(layer.forward)
    try:
        yield
    finally:
        for layer, own in replaced:
            if own is None:
                del layer.forward
            else:
                layer.forward = own


def _key_and_value_layers(unet: nn.Module) -> Iterator[Any]:
    compiled = any(module._compiled_call_impl is not None for module in unet.modules())
    for layer in attention_layers(unet):
        if layer.is_cross and not compiled:
            yield from (layer.module.to_k, layer.module.to_v)
            for name in ("to_k_ip", "to_v_ip"):
                yield from getattr(layer.module.processor, name, ())


def _remembering(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    kept: dict[tuple[Any, ...], tuple[Tensor, int | None, Tensor]] = {}

    def remembered(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # A tensor of several people's tokens is given in slices, which are new objects in every step. What was given is
        # kept itself, so that no other one can take its place in memory.
        place = (x.data_ptr(), x.shape, x.stride())
        now = None if x.is_inference() else x._version  # counts changes in place
        if place not in kept or kept[place][1] != now:
            if len(kept) >= _KEPT:
                kept.clear()
            kept[place] = x, now, forward(x, *args, **kwargs)
        return kept[place][2]

    return remembered
