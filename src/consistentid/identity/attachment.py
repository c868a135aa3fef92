"""Putting an identity adapter into a U-Net through diffusers' and PEFT's own seams, and taking it out again.

Weights go through diffusers' IP-Adapter loader and PEFT's LoRA injection; what those change besides is recorded
here, so that detaching leaves the U-Net bit-equal, with its own attention processors, LoRAs and gradient flags.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from consistentid.errors import InvalidSettings
from consistentid.identity.layout import (
    LORA_LAYERS,
    AttentionLayer,
    State,
    attention_layers,
    load_projector,
    projector_to_checkpoint,
)

LORA_NAME = "consistentid"


class Attachment:
    """An identity adapter inside a U-Net.

    Args:
        unet: a `UNet2DConditionModel`.
        image_proj: the projector's weights, in the checkpoint's layout.
        ip_adapter: k/v branch and LoRAs, in the checkpoint's layout.
        shortcut: see `AdapterConfig.shortcut`.
        trainable: whether the adapter's weights require gradients; those of the U-Net keep their flags.
        merge_loras: add the LoRAs to the U-Net's weights instead of computing them beside, which is faster; a copy
            of the attention weights is kept, from which `remove` restores them.

    Raises:
        InvalidSettings: the U-Net already carries an image adapter.
    """

    def __init__(
        self,
        unet: Any,
        *,
        image_proj: State,
        ip_adapter: State,
        shortcut: bool,
        trainable: bool = False,
        merge_loras: bool = False,
    ) -> None:
        if trainable and merge_loras:
            raise InvalidSettings("merged LoRAs cannot be trained; choose one of trainable and merge_loras")
        if unet.config.encoder_hid_dim_type is not None or LORA_NAME in getattr(unet, "peft_config", {}):
            raise InvalidSettings("the U-Net already carries an image adapter; detach that one first")
        self.unet = unet
        self.trainable = trainable
        self._merge_loras = merge_loras
        self._originals: list[tuple[Tensor, Tensor]] = []
        self._processors = dict(unet.attn_processors)
        self._gradients = [(parameter, parameter.requires_grad) for parameter in unet.parameters()]
        self._had_peft = hasattr(unet, "peft_config")
        self._active = {name: list(module.active_adapters) for name, module in self._lora_modules()}
        self._load({"image_proj": image_proj, "ip_adapter": ip_adapter}, shortcut=shortcut)
        self._layers = list(attention_layers(unet))
        self._activate_loras(True)
        self._set_gradients()

    @property
    def projector(self) -> Any:
        """Diffusers' projector inside the U-Net."""
        return self.unet.encoder_hid_proj.image_projection_layers[0]

    def identity_tokens(
        self, identity_embedding: Float[Tensor, "b d"], image_features: Float[Tensor, "b t di"]
    ) -> Float[Tensor, "b 4 dt"]:
        """The tokens that the k/v branch attends to."""
        self.set_image_features(image_features)
        tokens: Tensor = self.unet.encoder_hid_proj([identity_embedding[:, None]])[0][:, 0]
        return tokens

    @contextmanager
    def fixed_tokens(self, tokens: Float[Tensor, "b *p t dt"]) -> Iterator[Callable[[Tensor], None]]:
        """Let every U-Net call of the block use these identity tokens; gives what exchanges them."""
        projection = self.unet.encoder_hid_proj
        fixed = _FixedTokens(tokens)
        self.unet.encoder_hid_proj = fixed
        try:
            yield fixed.use
        finally:
            self.unet.encoder_hid_proj = projection

    def set_image_features(self, image_features: Float[Tensor, "b t di"]) -> None:
        """Give the projector the image features of the coming batch, one per sample."""
        weight = self.projector.proj_in.weight
        device = image_features.device if weight.is_meta else weight.device  # offloaded layer by layer
        self.projector.clip_embeds = image_features[:, None].to(device=device, dtype=weight.dtype)

    def set_scale(self, scale: float) -> None:
        """Weight of the identity tokens; at 0 the LoRAs are off as well, so that the U-Net is its own self."""
        for layer in self._layers:
            if layer.is_cross:
                layer.module.processor.scale = [scale]
        self._activate_loras(scale != 0)

    def parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """Live parameters by group (projector, kv, lora) and name."""
        return {
            "projector": dict(self.projector.named_parameters()),
            "kv": {key: value for layer in self._layers for key, value in _kv_weights(layer).items()},
            "lora": {key: value for layer in self._layers for key, value in _lora_weights(layer).items()},
        }

    def state(self) -> tuple[State, State]:
        """Current weights as `image_proj` and `ip_adapter`; they share memory with the U-Net's."""
        groups = self.parameters()
        ip_adapter = {key: value.detach() for group in ("lora", "kv") for key, value in groups[group].items()}
        image_proj = projector_to_checkpoint(self.projector.state_dict())
        return {key: value.detach() for key, value in image_proj.items()}, ip_adapter

    @torch.no_grad()
    def load(self, image_proj: State, ip_adapter: State) -> None:
        """Overwrite the live weights."""
        self.projector.load_state_dict(load_projector(image_proj, shortcut=self.projector.shortcut).state_dict())
        groups = self.parameters()
        for key, parameter in (groups["kv"] | groups["lora"]).items():
            parameter.copy_(ip_adapter[key])
        if self._originals:
            self._unmerge()
            self._merge()

    def remove(self) -> None:
        """Take the adapter out; afterwards the U-Net is what it was."""
        self._unmerge()
        self.unet.delete_adapters(LORA_NAME)
        self._unwrap_empty_loras()
        if not self._had_peft:
            self.unet.__dict__.pop("peft_config", None)
            self.unet._hf_peft_config_loaded = False
        for name, module in self._lora_modules():
            module.set_adapter(self._active[name])
        del self.unet.encoder_hid_proj
        self.unet.encoder_hid_proj = None
        self.unet.config.encoder_hid_dim_type = None
        self.unet.set_attn_processor(dict(self._processors))
        for parameter, requires_grad in self._gradients:
            parameter.requires_grad_(requires_grad)

    def _load(self, state: dict[str, State], *, shortcut: bool) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        # Fused projections would bypass the LoRAs, and sliced processors cannot be copied by the loader.
        plain = {
            name: processor if "XFormers" in type(processor).__name__ else AttnProcessor2_0()
            for name, processor in self._processors.items()
        }
        self.unet.set_attn_processor(plain)
        with _quiet("diffusers.models.modeling_utils"):  # warns of modules kept in float32 though there are none
            self.unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
        self.projector.shortcut = shortcut
        loras = self.unet._load_ip_adapter_loras([state])[0]
        self.unet.load_lora_adapter(loras, prefix="unet", adapter_name=LORA_NAME)
        self.projector.train(self.unet.training)

    def _lora_modules(self) -> list[tuple[str, Any]]:
        from peft.tuners.lora import LoraLayer

        return [(name, module) for name, module in self.unet.named_modules() if isinstance(module, LoraLayer)]

    def _activate_loras(self, on: bool) -> None:
        if self._merge_loras:
            self._merge() if on else self._unmerge()
        for name, module in self._lora_modules():
            own = [LORA_NAME] if on and not self._merge_loras else []
            flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
            module.set_adapter([*self._active.get(name, []), *own])
            for parameter, requires_grad in flags:  # set_adapter moved them
                parameter.requires_grad_(requires_grad)

    @torch.no_grad()
    def _merge(self) -> None:
        if self._originals:
            return
        for _, module in self._lora_modules():
            if LORA_NAME in module.lora_A:
                weight = module.get_base_layer().weight
                self._originals.append((weight, weight.clone()))
                weight.add_(module.get_delta_weight(LORA_NAME).to(weight.dtype))

    @torch.no_grad()
    def _unmerge(self) -> None:
        for weight, original in self._originals:
            weight.copy_(original)
        self._originals.clear()

    def _set_gradients(self) -> None:
        for parameter, requires_grad in self._gradients:  # PEFT froze them
            parameter.requires_grad_(requires_grad)
        for group in self.parameters().values():
            for parameter in group.values():
                parameter.requires_grad_(self.trainable)

    def _unwrap_empty_loras(self) -> None:
        for name, module in self._lora_modules():
            if not module.lora_A:
                parent, _, child = name.rpartition(".")
                setattr(self.unet.get_submodule(parent), child, module.get_base_layer())


class _FixedTokens(nn.Module):
    """Stands in for the projection of `image_embeds`."""

    def __init__(self, tokens: Float[Tensor, "b *p t dt"]) -> None:
        super().__init__()
        self.given: Tensor | None = None
        self.use(tokens)

    def use(self, tokens: Float[Tensor, "b *p t dt"]) -> None:
        """From now on these; the same ones again are no change, so that their keys and values stay kept."""
        if self.given is not tokens:
            self.given = tokens
            self.tokens = tokens if tokens.ndim > 3 else tokens[:, None]

    def forward(self, image_embeds: list[Tensor]) -> list[Tensor]:
        del image_embeds
        return [self.tokens]


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    log = logging.getLogger(logger_name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _kv_weights(layer: AttentionLayer) -> dict[str, nn.Parameter]:
    if not layer.is_cross:
        return {}
    processor = layer.module.processor
    return {f"{layer.index}.{name}.weight": getattr(processor, name)[0].weight for name in ("to_k_ip", "to_v_ip")}


def _lora_weights(layer: AttentionLayer) -> dict[str, nn.Parameter]:
    weights = {}
    for name in LORA_LAYERS:
        linear: Any = layer.linear(name)
        weights[f"{layer.index}.{name}_lora.down.weight"] = linear.lora_A[LORA_NAME].weight
        weights[f"{layer.index}.{name}_lora.up.weight"] = linear.lora_B[LORA_NAME].weight
    return weights
