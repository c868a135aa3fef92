"""ComfyUI's text encoders as the package's conditioner calls them, with ComfyUI's syntax in prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from consistentid.errors import InvalidSettings
from consistentid.identity.conditioner import Conditioner

from .sockets import Loaded

_STREAMS = ("clip_l", "clip_g")  # ComfyUI's names, in the order in which their texts lie side by side


def conditioner_of(loaded: Loaded, clip: Any) -> Conditioner:
    """The package's conditioner on a CLIP of ComfyUI, whose LoRAs and skipped layers count.

    Args:
        loaded: the adapter and its image encoder.
        clip: a `comfy.sd.CLIP`.

    Raises:
        InvalidSettings: it is the CLIP of another base model than the adapter's.
    """
    model, config = clip.cond_stage_model, loaded.adapter.config
    streams = [name for name in _STREAMS if hasattr(model, name)]
    width = sum(getattr(model, name).transformer.get_input_embeddings().weight.shape[1] for name in streams)
    if width != config.text_dim or len(streams) < len(list(model.children())):
        raise InvalidSettings(
            f"this CLIP is none of the base model that the adapter was trained for ({config.base}): it writes texts of "
            f"width {width}, the adapter reads {config.text_dim}"
        )
    clip.load_model()
    words = [_Words(getattr(clip.tokenizer, name)) for name in streams]
    layer = config.quirks.text_layer
    encoders = [
        TextEncoder(getattr(model, name), own, layer=layer, chosen=clip.layer_idx, pooled=len(streams) > 1)
        for name, own in zip(streams, words, strict=True)
    ]
    conditioner = Conditioner(
        loaded.adapter,
        text_encoders=encoders,
        tokenizers=[Tokenizer(own) for own in words],
        image_encoder=loaded.image_encoder,
    )
    conditioner.keep_in(loaded.features)
    return conditioner


class _Words:
    """Ids of what ComfyUI's tokenizer finds in prompts; words with a weight, and vectors, get some of their own.

    Args:
        tokenizer: a `comfy.sd1_clip.SDTokenizer`; it reads `(word:1.2)` and `embedding:name`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._first = max(tokenizer.inv_vocab) + 1
        self._own: list[tuple[int | Tensor, float]] = []

    def ids(self, text: str) -> list[int]:
        """Of a text, without those of its start and end."""
        chunks = self.tokenizer.tokenize_with_weights(text, return_word_ids=True)
        return [self._id(token, weight) for chunk in chunks for token, weight, word in chunk if word != 0]

    def token(self, number: int) -> tuple[int | Tensor, float]:
        """What ComfyUI's encoder is given for an id."""
        return (number, 1.0) if number < self._first else self._own[number - self._first]

    def _id(self, token: int | Tensor, weight: float) -> int:
        if isinstance(token, int) and weight == 1:
            return token
        self._own.append((token, weight))
        return self._first + len(self._own) - 1


class Tokenizer:
    """A tokenizer as the package calls those of transformers."""

    def __init__(self, words: _Words) -> None:
        self._words = words
        self.bos_token_id: int = words.tokenizer.start_token
        self.eos_token_id: int = words.tokenizer.end_token
        self.pad_token_id: int = words.tokenizer.pad_token

    def __call__(self, text: str | Sequence[str], **_: object) -> dict[str, list[Any]]:
        """Texts -> `input_ids`, without start and end."""
        return {"input_ids": self._words.ids(text) if isinstance(text, str) else [*map(self._words.ids, text)]}


@dataclass(frozen=True)
class _Encoded:
    """What the package reads of a text encoder's output."""

    last_hidden_state: Float[Tensor, "b l d"]
    hidden_states: dict[int, Float[Tensor, "b l d"]]
    text_embeds: Float[Tensor, "b dp"] | None

    def get(self, name: str) -> Tensor | None:
        return getattr(self, name, None)


class TextEncoder:
    """A text encoder as the package calls those of transformers.

    Args:
        encoder: a `comfy.sd1_clip.SDClipModel`.
        words: of its tokenizer.
        layer: hidden state that the adapter was trained with, -1 for the normalised last one.
        chosen: what CLIP Set Last Layer says instead.
        pooled: whether the pooled text is asked for.
    """

    device = torch.device("cpu")  # where ids come from and embeddings go to

    def __init__(self, encoder: Any, words: _Words, *, layer: int, chosen: int | None, pooled: bool) -> None:
        self._encoder = encoder
        self._words = words
        self._layer = layer
        self._chosen = chosen
        self._pooled = pooled

    def __call__(self, ids: Int[Tensor, "b l"], **_: object) -> _Encoded:
        """Hidden states of the one layer, with ComfyUI's weights of words."""
        layer = None if self._layer == -1 else self._layer
        self._encoder.reset_clip_options()
        self._encoder.set_clip_options({"layer": layer if self._chosen is None else self._chosen})
        rows = [self._encoder.encode_token_weights([[*map(self._words.token, row)]]) for row in ids.tolist()]
        self._encoder.reset_clip_options()
        states = torch.cat([row[0] for row in rows]).to(self.device)
        pooled = torch.cat([row[1] for row in rows]).to(self.device) if self._pooled else None
        return _Encoded(states, {self._layer: states}, pooled)
