"""Token ids and prompts -> text embeddings, with one text encoder or SDXL's two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from consistentid.prompting.facial_prompt import FacialPrompt, plain_ids
from consistentid.prompting.style import FacialPromptStyle


@dataclass(frozen=True)
class TextEmbeddings:
    """A batch of encoded texts.

    Attributes:
        tokens: one embedding per token; those of two encoders side by side.
        pooled: one embedding per text from the second encoder; None with one encoder.
    """

    tokens: Float[Tensor, "b l d"]
    pooled: Float[Tensor, "b dp"] | None = None

    def to(self, device: torch.device) -> "TextEmbeddings":
        """On another device."""
        return TextEmbeddings(self.tokens.to(device), None if self.pooled is None else self.pooled.to(device))


@dataclass(frozen=True)
class EncodedPrompts:
    """All texts of a batch, of equal length.

    Attributes:
        prompts: with ids and positions as they were encoded.
        full: prompt and caption.
        text_only: the text before the merge step.
        negative: the negative prompt.
    """

    prompts: tuple[FacialPrompt, ...]
    full: TextEmbeddings
    text_only: TextEmbeddings
    negative: TextEmbeddings

    def to(self, device: torch.device) -> "EncodedPrompts":
        """On another device."""
        return EncodedPrompts(self.prompts, self.full.to(device), self.text_only.to(device), self.negative.to(device))


def encode_prompts(
    prompts: Sequence[FacialPrompt],
    negatives: Sequence[str],
    text_encoders: Sequence[Any],
    tokenizers: Sequence[Any],
    *,
    style: FacialPromptStyle,
    layer: int,
) -> EncodedPrompts:
    """Encode facial prompts and negative prompts as they are, without weights.

    Args:
        prompts: with their ids.
        negatives: one for each.
        text_encoders: one, or SDXL's two.
        tokenizers: likewise.
        style: that of the prompts.
        layer: see `encode_text`.
    """

    def encode(rows: Sequence[Sequence[Tensor | None]]) -> TextEmbeddings:
        streams = [torch.cat([row[index] for row in rows]) for index in range(len(text_encoders))]  # type: ignore[misc]
        return encode_text(text_encoders, streams, layer=layer)

    return EncodedPrompts(
        tuple(prompts),
        full=encode([[one.ids, one.ids_2] for one in prompts]),
        text_only=encode([[one.text_only_ids, one.text_only_ids_2] for one in prompts]),
        negative=encode([[plain_ids(text, one, style.length) for one in tokenizers] for text in negatives]),
    )


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
        encoded = encode_stream(encoder, stream, layer=layer)
        tokens.append(encoded.tokens)
        pooled = encoded.pooled
    return TextEmbeddings(torch.cat(tokens, dim=-1), pooled)


def encode_stream(
    encoder: Any, ids: Int[Tensor, "b l"], *, layer: int, attention_mask: Int[Tensor, "b l"] | None = None
) -> TextEmbeddings:
    """Encode a batch with one text encoder; tokens where the mask is 0 are not looked at."""
    if encoder.device.type != "meta":  # offloaded layer by layer: hooks move what is given
        ids = ids.to(encoder.device)
        attention_mask = None if attention_mask is None else attention_mask.to(encoder.device)
    output = encoder(ids, attention_mask=attention_mask, output_hidden_states=layer != -1)
    tokens = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
    return TextEmbeddings(tokens, output.get("text_embeds"))
