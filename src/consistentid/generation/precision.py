"""Weights of less than 32 bits inside a pipeline that computes in 32."""

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


def compute_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep a network's weights in a type, and change what goes in and comes out, so that its callers see float32.

    Timesteps are left alone: bfloat16 cannot count to 1000.
    """
    module.to(dtype=dtype)
    if dtype == torch.float32:
        return

    text: list[tuple[Tensor, Tensor]] = []  # the last one and its cast: see identity.kept_keys

    def narrow(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        given = kwargs.get("encoder_hidden_states")
        narrowed = _pytree.tree_map(lambda value: _cast(value, dtype), (args, kwargs))
        if isinstance(given, Tensor):
            if not text or text[0][0] is not given:
                text[:] = [(given, narrowed[1]["encoder_hidden_states"])]
            narrowed[1]["encoder_hidden_states"] = text[0][1]
        return narrowed

    def widen(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return tuple(_cast(value, torch.float32) for value in output)
        output.sample = _cast(output.sample, torch.float32)
        return output

    module.register_forward_pre_hook(narrow, with_kwargs=True)
    module.register_forward_hook(widen)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    is_data = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
    return value.to(dtype) if is_data else value


def _automatic(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and is_fast_in_bfloat16(device) else torch.float32
