"""Text from an earlier layer of the text encoder, for base models that were trained so."""

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from consistentid.errors import InvalidSettings
from consistentid.identity.conditioner import Conditioner


@dataclass
class _Output:
    """What `identity.text.encode_stream` reads of a text encoder's output."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    text_embeds: Tensor | None

    def get(self, name: str) -> Tensor | None:
        return getattr(self, name, None)


class _Skipping:
    """A text encoder whose last layers do not exist; the pooled text is that of all layers, as in diffusers."""

    def __init__(self, encoder: Any, layers: int) -> None:
        self.encoder = encoder
        self.layers = layers

    @property
    def device(self) -> torch.device:
        device: torch.device = self.encoder.device
        return device

    def __call__(
        self, ids: Int[Tensor, "b l"], *, attention_mask: Int[Tensor, "b l"] | None = None, **_: object
    ) -> _Output:
        output = self.encoder(ids, attention_mask=attention_mask, output_hidden_states=True)
        states = output.hidden_states[: -self.layers]
        norm = getattr(self.encoder, "text_model", self.encoder).final_layer_norm
        return _Output(norm(states[-1]), states, output.get("text_embeds"))


def without_last_layers(conditioner: Conditioner, layers: int) -> Conditioner:
    """The conditioner with text encoders that leave out their last layers; the given one stays as it is.

    Args:
        conditioner: with all layers.
        layers: how many to leave out; 0 for none. "Clip skip 2" of other programs is 1.

    Raises:
        InvalidSettings: a text encoder has no so many layers.
    """
    if layers == 0:
        return conditioner
    least = min(encoder.config.num_hidden_layers for encoder in conditioner.text_encoders)
    if layers >= least:
        raise InvalidSettings(f"clip_skip {layers} must be less than {least}, the layers of the text encoder")
    shorter = copy(conditioner)
    shorter.text_encoders = [_Skipping(encoder, layers) for encoder in conditioner.text_encoders]
    return shorter
