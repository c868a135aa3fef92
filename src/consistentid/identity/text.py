"""Token ids -> text embeddings, with one text encoder or SDXL's two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TextEmbeddings:
    """A batch of encoded texts.

    Attributes:
        tokens: one embedding per token; those of two encoders side by side.
        pooled: one embedding per text from the second encoder; None with one encoder.
    """

    tokens: Float[Tensor, "b l d"]
    pooled: Float[Tensor, "b dp"] | None = None


@torch.no_grad()
def encode_text(text_encoders: Sequence[Any], ids: Sequence[Int[Tensor, "b l"]], *, layer: int = -1) -> TextEmbeddings:
    """Encode a batch.

    Args:
        text_encoders: one, or SDXL's two.
        ids: token ids for each encoder.
        layer: -1 for the normalised last hidden state, -2 for the penultimate hidden states.
    """
    tokens, pooled = [], None
    for encoder, stream in zip(text_encoders, ids, strict=True):
        if encoder.device.type != "meta":  # offloaded layer by layer: hooks move what is given
            stream = stream.to(encoder.device)
        output = encoder(stream, output_hidden_states=layer != -1)
        tokens.append(output.last_hidden_state if layer == -1 else output.hidden_states[layer])
        pooled = output.get("text_embeds")
    return TextEmbeddings(torch.cat(tokens, dim=-1), pooled)
