"""Networks of one type inside a pipeline that computes in another, such as 16-bit weights among 32-bit latents."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from consistentid.devices import is_fast_in_bfloat16
from consistentid.errors import InvalidSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def dtype_for(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type of a name; `auto` is what is fast on the device without losing the picture.

    Raises:
        InvalidSettings: there is no such type, or the device cannot compute in it.
    """
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        return _automatic(device)
    if name not in DTYPES:
        raise InvalidSettings(f"there is no dtype {name!r}; choose auto, {', '.join(DTYPES)}")
    if name == "float16" and device.type == "cpu":
        raise InvalidSettings("float16 is not for the CPU; choose bfloat16 or float32")
    return DTYPES[name]


@contextmanager
def in_own_precision(*networks: nn.Module) -> Iterator[None]:
    """Let networks run in the type of their weights, whatever type their callers compute in.

    What goes in is cast to the type of the weights, what comes out to that of the sample which went in. Timesteps are
    left alone: bfloat16 cannot count to 1000.

    Args:
        networks: U-Nets and ControlNets; their weights are not touched.
    """
    handles = []
    for network in networks:
        boundary = _Boundary(network.dtype)  # type: ignore[arg-type]
        handles.append(network.register_forward_pre_hook(boundary.enter, with_kwargs=True))
        handles.append(network.register_forward_hook(boundary.leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Boundary:
    """What stands between a network and callers that compute in another type."""

    def __init__(self, inside: torch.dtype) -> None:
        self.inside = inside
        self.outside = inside
        self._text: tuple[Tensor, Tensor] | None = None  # the last one and its cast: see identity.kept_keys

    def enter(self, _: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """A forward pre-hook."""
        self.outside = (args[0] if args else kwargs["sample"]).dtype
        narrowed = _pytree.tree_map(lambda value: _cast(value, self.inside), (args, kwargs))
        given = kwargs.get("encoder_hidden_states")
        if isinstance(given, Tensor):
            if self._text is None or self._text[0] is not given:
                self._text = (given, narrowed[1]["encoder_hidden_states"])
            narrowed[1]["encoder_hidden_states"] = self._text[1]
        return narrowed

    def leave(self, _: nn.Module, __: Any, output: Any) -> Any:
        """A forward hook."""
        return _pytree.tree_map(lambda value: _cast(value, self.outside), output)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    is_data = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
    return value.to(dtype) if is_data else value


def _automatic(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and is_fast_in_bfloat16(device) else torch.float32
