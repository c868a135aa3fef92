"""The adapter inside a MODEL of ComfyUI: LoRAs through its patches of weights, the k/v branch through attention's."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.lora
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from consistentid.errors import InvalidSettings
from consistentid.identity.adapter import IdentityAdapter, check_shapes, split_state
from consistentid.identity.config import AdapterConfig
from consistentid.identity.layout import LORA_LAYERS, AttentionLayer, State, layer_shapes

from .steps import TOKENS, read_by_steps

KEY = "consistentid"
_ORDER = ("down_blocks", "up_blocks", "mid_block")  # of the checkpoint's layers
_PLACE = re.compile(r"(input|output|middle)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)\.")


@dataclass(frozen=True)
class Attached:
    """What a MODEL already carries."""

    adapter: IdentityAdapter
    scale: float


def attach(model: Any, adapter: IdentityAdapter, *, scale: float) -> Any:
    """A copy of a MODEL with the adapter; the given one stays as it is, and so do the weights they share.

    Args:
        model: a `comfy.model_patcher.ModelPatcher`. One that carries the adapter already, for another person of the
            picture, is given back.
        adapter: outside of any U-Net.
        scale: weight of the identity tokens; at 0 the LoRAs are off as well.

    Raises:
        InvalidSettings: the model carries another adapter, or this one with another scale, or is of another kind.
        WeightsNotFound: the adapter's layers are not the model's.
    """
    before = model.get_attachment(KEY)
    if before is not None and (before.adapter, before.scale) != (adapter, scale):
        raise InvalidSettings(
            "the model already carries a ConsistentID adapter with other weights or another identity_scale; give all "
            "people of one picture the same"
        )
    if before is not None:
        return model
    layers = _layers(model.model, adapter.config)
    weights = split_state(adapter.state())["ip_adapter"]
    check_shapes(weights, layer_shapes(layers, adapter.config.lora_rank), source="the adapter of this checkpoint")
    patched = model.clone()
    if scale != 0:
        patched.add_patches(_loras(layers, weights))
        _add_branch(patched, layers, weights, scale=scale)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, read_by_steps)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, _hand_over_tokens)
    patched.set_attachments(KEY, Attached(adapter, scale))
    return patched


@dataclass(frozen=True, eq=False)
class IdentityAttention:
    """Cross-attention to the text and, beside it, to the identity tokens: an `attn2` replacement of ComfyUI.

    Attributes:
        key, value: weights of the k/v branch.
        scale: of what it adds.
        text: another node's replacement that was there before; None: ComfyUI's own attention.
    """

    key: Float[Tensor, "d dt"]
    value: Float[Tensor, "d dt"]
    scale: float
    text: Callable[..., Tensor] | None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Float[Tensor, "b l d"]:
        """Called by ComfyUI with what the layers `to_q`, `to_k` and `to_v` give, LoRAs included."""
        attended = _attend(query, key, value, options) if self.text is None else self.text(query, key, value, options)
        tokens = options.get(TOKENS)
        if tokens is None:  # a conditioning without a face
            return attended
        tokens = tokens.to(query)
        key, value = (F.linear(tokens, weight.to(query)) for weight in (self.key, self.value))
        return attended + self.scale * _attend(query, key, value, options)

    def to(self, place: torch.device | torch.dtype) -> "IdentityAttention":
        """Called by ComfyUI when it moves a model."""
        text = self.text.to(place) if hasattr(self.text, "to") else self.text
        return replace(self, key=self.key.to(place), value=self.value.to(place), text=text)


def _attend(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
    attended: Tensor = optimized_attention(
        query,
        key,
        value,
        options["n_heads"],
        attn_precision=options["attn_precision"],
        transformer_options=options,
    )
    return attended


def _layers(model: Any, config: AdapterConfig) -> list[AttentionLayer]:
    """Attention layers in the checkpoint's order, under ComfyUI's names."""
    unet_config = model.model_config.unet_config
    width = unet_config.get("context_dim")
    if width != config.text_dim or not hasattr(model.diffusion_model, "input_blocks"):
        what = f"reads texts of width {width}" if width else "is no U-Net"
        raise InvalidSettings(
            f"the checkpoint {what}, the adapter writes {config.text_dim}; use the base model that the adapter was "
            f"trained for ({config.base})"
        )
    query = ".to_q.weight"
    names = {
        theirs.removesuffix(query): ours.removesuffix(query)
        for theirs, ours in comfy.utils.unet_to_diffusers(unet_config).items()
        if theirs.endswith(query)
    }

    def place(name: str) -> tuple[int, list[int]]:
        return _ORDER.index(name.partition(".")[0]), [int(number) for number in re.findall(r"\d+", name)]

    return [
        AttentionLayer(index, names[name], model.diffusion_model.get_submodule(names[name]))
        for index, name in enumerate(sorted(names, key=place))
    ]


def _loras(layers: list[AttentionLayer], weights: State) -> dict[str, Any]:
    """Patches of weights, as ComfyUI makes them of a file's LoRAs."""
    state = {
        key.replace("_lora.down", ".lora_down").replace("_lora.up", ".lora_up"): value
        for key, value in weights.items()
        if "_lora." in key
    }
    names = {
        f"{layer.index}.{ours}": f"diffusion_model.{layer.name}.{theirs}.weight"
        for layer in layers
        for ours, theirs in LORA_LAYERS.items()
    }
    loaded: dict[str, Any] = comfy.lora.load_lora(state, names)
    return loaded


def _add_branch(patched: Any, layers: list[AttentionLayer], weights: State, *, scale: float) -> None:
    given = patched.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    earlier = dict(given)
    for layer in layers:
        if not layer.is_cross:
            continue
        key, value = (weights[f"{layer.index}.{name}.weight"] for name in ("to_k_ip", "to_v_ip"))
        found = _PLACE.match(layer.name)
        assert found is not None
        block, number, index = found[1], 0 if found[1] == "middle" else int(found[2]), int(found[3])
        text = earlier.get((block, number, index), earlier.get((block, number)))
        patched.set_model_attn2_replace(IdentityAttention(key, value, scale, text), block, number, index)


def _hand_over_tokens(
    executor: Any,
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    y: Tensor | None,
    control: Any,
    transformer_options: dict[str, Any],
    **others: Any,
) -> Tensor:
    """Move the identity tokens of a batch from the U-Net's arguments to where its attention finds them."""
    options = {**transformer_options, TOKENS: others.pop(TOKENS, None)}
    output: Tensor = executor(x, timesteps, context, y, control, options, **others)
    return output
