"""The key layout of an IP-Adapter-FaceID-Plus checkpoint, which the released checkpoints and ours share.

`image_proj` is the projector; `ip_adapter` holds, for attention layer i in the U-Net's own order (down, up, mid),
`{i}.to_{q,k,v,out}_lora.{down,up}.weight` and, for cross-attention, `{i}.to_{k,v}_ip.weight`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from consistentid.identity.config import HEAD_WIDTH, NUM_IDENTITY_TOKENS, PROJECTOR_DEPTH, AdapterConfig

State = dict[str, Tensor]
LORA_LAYERS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}  # checkpoint -> module
_KV = {"to_k_ip": "to_k", "to_v_ip": "to_v"}

# diffusers' names inside a projector layer -> the checkpoint's
_PROJECTOR_LAYER = {
    "ln0": "0.norm1",
    "ln1": "0.norm2",
    "attn.to_q": "0.to_q",
    "attn.to_out.0": "0.to_out",
    "ff.0": "1.0",
    "ff.1.net.0.proj": "1.1",
    "ff.1.net.2": "1.3",
}
_PROJECTOR_HEAD = {"proj.net.0.proj": "proj.0", "proj.net.2": "proj.2", "norm": "norm"}


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer of a U-Net: its index in the checkpoint, its module name and the module."""

    index: int
    name: str
    module: Any

    @property
    def is_cross(self) -> bool:
        """Whether it attends to the text and so has a k/v branch for identity tokens."""
        return self.name.endswith("attn2")

    def linear(self, checkpoint_name: str) -> nn.Module:
        """The (possibly LoRA-wrapped) linear layer that a checkpoint calls to_q, to_k, to_v or to_out."""
        layer: nn.Module = self.module.get_submodule(LORA_LAYERS[checkpoint_name])
        return layer

    def shape(self, checkpoint_name: str) -> tuple[int, int]:
        """Its numbers of outputs and inputs."""
        return outputs_and_inputs(self.linear(checkpoint_name))

    def base_weight(self, checkpoint_name: str) -> Tensor:
        """Its weight, without any LoRA."""
        layer: Any = self.linear(checkpoint_name)
        weight: Tensor = getattr(layer, "base_layer", layer).weight
        return weight


def outputs_and_inputs(layer: Any) -> tuple[int, int]:
    """Sizes of a linear layer or a convolution as it declares them: weights of 4 bits are packed into another shape.

    Raises:
        AttributeError: it is neither.
    """
    plain = getattr(layer, "base_layer", layer)
    if hasattr(plain, "in_features"):
        return plain.out_features, plain.in_features
    return plain.out_channels, plain.in_channels


def attention_layers(unet: nn.Module) -> Iterator[AttentionLayer]:
    """The attention layers of a U-Net in the checkpoint's order; those of an attached projector do not count."""
    names = (name.removesuffix(".processor") for name in unet.attn_processors)  # type: ignore[union-attr]
    own = (name for name in names if not name.startswith("encoder_hid_proj."))
    for index, name in enumerate(own):
        yield AttentionLayer(index, name, unet.get_submodule(name))


def ip_adapter_shapes(unet: nn.Module, rank: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the `ip_adapter` part for a U-Net (which may be on the meta device)."""
    return layer_shapes(attention_layers(unet), rank)


def layer_shapes(layers: Iterable[AttentionLayer], rank: int) -> dict[str, tuple[int, ...]]:
    """The same for the attention layers of a U-Net, in the checkpoint's order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        for name in LORA_LAYERS:
            out_dim, in_dim = layer.shape(name)
            shapes[f"{layer.index}.{name}_lora.down.weight"] = (rank, in_dim)
            shapes[f"{layer.index}.{name}_lora.up.weight"] = (out_dim, rank)
        if layer.is_cross:
            for name, source in _KV.items():
                shapes[f"{layer.index}.{name}.weight"] = layer.shape(source)
    return shapes


def new_ip_adapter(unet: nn.Module, rank: int) -> State:
    """Fresh LoRAs without effect and a k/v branch that reads identity tokens as the U-Net reads text."""
    state: State = {}
    for key, shape in ip_adapter_shapes(unet, rank).items():
        weight = torch.zeros(shape)
        if key.endswith("down.weight"):
            nn.init.normal_(weight, std=shape[1] ** -0.5)
        state[key] = weight
    for layer in attention_layers(unet):
        if layer.is_cross:
            for name, source in _KV.items():
                state[f"{layer.index}.{name}.weight"] = layer.base_weight(source).detach().float().cpu().clone()
    return state


def new_projector(config: AdapterConfig) -> nn.Module:
    """Diffusers' projector of the adapter's sizes, with fresh weights."""
    from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection

    projector: nn.Module = IPAdapterFaceIDPlusImageProjection(
        embed_dims=config.projector_width,
        output_dims=config.text_dim,
        hidden_dims=config.image_dim,
        id_embeddings_dim=config.identity_dim,
        depth=PROJECTOR_DEPTH,
        heads=config.projector_width // HEAD_WIDTH,
        num_tokens=NUM_IDENTITY_TOKENS,
    )
    return projector


def load_projector(state: State, *, shortcut: bool) -> Any:
    """Diffusers' projector with weights in the checkpoint's layout.

    Args:
        state: the `image_proj` part.
        shortcut: see `AdapterConfig.shortcut`.
    """
    from diffusers.loaders.unet import UNet2DConditionLoadersMixin

    projector: Any = UNet2DConditionLoadersMixin()._convert_ip_adapter_image_proj_to_diffusers(
        dict(state), low_cpu_mem_usage=False
    )
    projector.shortcut = shortcut
    return projector


def projector_shapes(config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the `image_proj` part."""
    with torch.device("meta"):
        state = projector_to_checkpoint(new_projector(config).state_dict())
    return {key: tuple(value.shape) for key, value in state.items()}


def projector_to_checkpoint(state: Mapping[str, Tensor]) -> State:
    """Diffusers' names of the projector's weights -> the checkpoint's (the inverse of diffusers' own loader)."""
    result: State = {}
    for key, value in state.items():
        module, parameter = key.rsplit(".", 1)
        if module in _PROJECTOR_HEAD:
            result[f"{_PROJECTOR_HEAD[module]}.{parameter}"] = value
        elif not module.startswith("layers."):
            result[f"perceiver_resampler.{key}"] = value
        else:
            _, index, inner = module.split(".", 2)
            prefix = f"perceiver_resampler.layers.{index}"
            if inner == "attn.to_k":
                values = state[f"layers.{index}.attn.to_v.weight"]
                result[f"{prefix}.0.to_kv.weight"] = torch.cat([value, values])
            elif inner != "attn.to_v":
                result[f"{prefix}.{_PROJECTOR_LAYER[inner]}.{parameter}"] = value
    return result
