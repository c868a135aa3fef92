"""Text embeddings with weighted words, and of any length: compel around the text encoders of a base model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from consistentid.errors import InvalidPrompt
from consistentid.identity.text import EncodedPrompts, TextEmbeddings, encode_stream
from consistentid.identity.weighted_prompt import Fragments, WeightedPrompt
from consistentid.prompting.facial_prompt import FacialPrompt
from consistentid.prompting.style import MARKER, FacialPromptStyle
from consistentid.prompting.tokens import tokenize_marked


def weighted_style(style: FacialPromptStyle) -> FacialPromptStyle:
    """The style for weighted prompts: the aligned one cuts nothing, those of the released checkpoints do as ever."""
    return style if style.marking == "release" else style.model_copy(update={"length": None})


class WeightedTextEncoder:
    """One text encoder, or SDXL's two, whose words have weights.

    In the aligned style a text takes as many chunks of the encoder's context as it needs. The styles of the released
    checkpoints cut it to one, as the release does, but always with the end token.

    Args:
        text_encoders: one, or SDXL's two.
        tokenizers: likewise.
        style: of the facial prompts.
        layer: see `encode_text`.
    """

    def __init__(
        self, text_encoders: Sequence[Any], tokenizers: Sequence[Any], *, style: FacialPromptStyle, layer: int
    ) -> None:
        self.style = style
        self._streams = [
            _Stream(encoder, tokenizer, style=style, layer=layer, pools=index == 1)
            for index, (encoder, tokenizer) in enumerate(zip(text_encoders, tokenizers, strict=True))
        ]

    @torch.no_grad()
    def encode(
        self, prompts: Sequence[FacialPrompt], weights: Sequence[WeightedPrompt], negatives: Sequence[str]
    ) -> EncodedPrompts:
        """Encode a batch.

        Args:
            prompts: composed with the texts of `weights`, in full length where the style allows it.
            weights: the prompts alone.
            negatives: negative prompts, with weights.

        Returns:
            All texts with the same number of chunks; the prompts with the ids and positions in these.

        Raises:
            InvalidPrompt: a negative prompt cannot be read, or a text is cut into other tokens than its parts.
        """
        count = len(prompts)
        marked = [one.within(prompt.text) for prompt, one in zip(prompts, weights, strict=True)]
        others = [one.within(prompt.text_only) for prompt, one in zip(prompts, weights, strict=True)]
        others += [WeightedPrompt.parse(text).fragments for text in negatives]
        streams = []
        for index, stream in enumerate(self._streams):
            literal = index > 0 and not self.style.mark_all_streams
            streams.append(stream.encode([*(marked if literal else map(_unmarked, marked)), *others]))
        ids = [[stream.ids[row] for stream in streams] for row in range(2 * count)]
        placed = [
            self._placed(prompt, fragments, ids[row], ids[count + row])
            for row, (prompt, fragments) in enumerate(zip(prompts, marked, strict=True))
        ]
        return EncodedPrompts(tuple(placed), *_thirds(streams))

    def _placed(
        self, prompt: FacialPrompt, fragments: Fragments, ids: list[Tensor], text_only_ids: list[Tensor]
    ) -> FacialPrompt:
        checked = len(ids) if self.style.mark_all_streams else 1
        found = {
            stream.positions(fragments, row.flatten().tolist())
            for stream, row in zip(self._streams[:checked], ids[:checked], strict=True)
        }
        if len(found) > 1:
            raise InvalidPrompt("the two tokenizers do not cut the prompt alike, so its words cannot be weighted")
        positions = found.pop()
        second: dict[str, Any] = {"ids_2": ids[1], "text_only_ids_2": text_only_ids[1]} if len(ids) > 1 else {}
        regions = prompt.marked_regions[: len(positions)]
        return replace(
            prompt, ids=ids[0], text_only_ids=text_only_ids[0], positions=positions, regions=regions, **second
        )


@dataclass(frozen=True)
class _EncodedStream:
    """Texts of one text encoder: embeddings of equal length, and each text's own ids."""

    tokens: Float[Tensor, "b l d"]
    pooled: Float[Tensor, "b dp"] | None
    ids: list[Int[Tensor, "1 _"]]


class _Stream:
    """One text encoder with its tokenizer, in compel's hands."""

    def __init__(self, encoder: Any, tokenizer: Any, *, style: FacialPromptStyle, layer: int, pools: bool) -> None:
        from compel import Compel

        self.tokenizer = tokenizer
        self.pools = pools
        self.truncate = style.marking == "release"
        self.compel = Compel(
            tokenizer=tokenizer,
            text_encoder=_EncoderForCompel(encoder, layer),
            truncate_long_prompts=self.truncate,
            model_max_length=style.length,
            device="cpu",
        )

    def encode(self, texts: Sequence[Fragments]) -> _EncodedStream:
        known = {text: self._encode_one(text) for text in dict.fromkeys(texts)}
        encoded = [known[text] for text in texts]
        padded = self.compel.pad_conditioning_tensors_to_same_length([tokens for tokens, _, _ in encoded])
        pooled = [row for _, row, _ in encoded if row is not None]
        return _EncodedStream(torch.cat(padded), torch.cat(pooled) if pooled else None, [ids for *_, ids in encoded])

    def positions(self, fragments: Fragments, ids: list[int]) -> tuple[int, ...]:
        """Where the marked words stand in compel's ids, which must be those of the fragments."""
        words: list[int] = []
        marks: list[int] = []
        for text, _ in fragments:
            piece = tokenize_marked(text, self.tokenizer)
            marks += [len(words) + position - 1 for position in piece.positions]
            words += piece.ids[1:-1]
        places = self._places(ids)
        expected = words[: len(places)] if self.truncate else words
        if [ids[place] for place in places] != expected:
            raise InvalidPrompt("compel cuts the prompt into other tokens than its parts; leave special tokens out")
        return tuple(places[mark] for mark in marks if mark < len(places))

    def _places(self, ids: list[int]) -> list[int]:
        """Where words stand: in every chunk, between its start token and its first end token."""
        size = self.compel.conditioning_provider.max_token_count
        places: list[int] = []
        for start in range(0, len(ids), size):
            places += range(start + 1, ids.index(self.tokenizer.eos_token_id, start))
        return places

    def _encode_one(self, text: Fragments) -> tuple[Tensor, Tensor | None, Tensor]:
        provider = self.compel.conditioning_provider
        text = text or (("", 1.0),)
        pieces = [piece for piece, _ in text]
        tokens, ids = provider.get_embeddings_for_weighted_prompt_fragments(
            [pieces], [[weight for _, weight in text]], should_return_tokens=True, device="cpu"
        )
        pooled = provider.get_pooled_embeddings([" ".join(pieces)], device="cpu") if self.pools else None
        return tokens, pooled, ids


@dataclass
class _Output:
    """What compel reads of a text encoder's output."""

    last_hidden_state: Tensor
    text_embeds: Tensor | None


class _EncoderForCompel:
    """A text encoder that gives the wanted layer as its last, on the CPU in 32 bits, wherever it runs itself."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, encoder: Any, layer: int) -> None:
        self.encoder = encoder
        self.layer = layer

    def __call__(
        self, ids: Int[Tensor, "b l"], attention_mask: Int[Tensor, "b l"] | None = None, **_: object
    ) -> _Output:
        encoded = encode_stream(self.encoder, ids, layer=self.layer, attention_mask=attention_mask)
        pooled = encoded.pooled
        return _Output(encoded.tokens.to("cpu", torch.float32), None if pooled is None else pooled.to("cpu"))


def _unmarked(fragments: Fragments) -> Fragments:
    return tuple((text.replace(f" {MARKER}", ""), weight) for text, weight in fragments)


def _thirds(streams: Sequence[_EncodedStream]) -> list[TextEmbeddings]:
    """Streams side by side, cut into three batches; the pooled embedding is that of the last stream."""
    tokens = torch.cat([stream.tokens for stream in streams], dim=-1).chunk(3)
    pooled = streams[-1].pooled
    return [
        TextEmbeddings(*pair) for pair in zip(tokens, (None,) * 3 if pooled is None else pooled.chunk(3), strict=True)
    ]
