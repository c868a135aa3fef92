"""The facial prompt: prompt and caption in one text, with the word of every region marked.

Section 3.1 of arXiv:2404.16771.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from consistentid.errors import InvalidPrompt
from consistentid.faces.regions import REGION_NAMES
from consistentid.prompting.marking import Clause, mark_as_release, mark_clauses
from consistentid.prompting.style import MARKER, FacialPromptStyle
from consistentid.prompting.tokens import MarkedTokens, tokenize_marked


@dataclass(frozen=True, eq=False)
class FacialPrompt:
    """A facial prompt, ready for the text encoder(s).

    Attributes:
        text: prompt and caption, a marker behind every marked word.
        text_only: the text before the merge step, without markers.
        regions: region of each position.
        positions: index of each marked word in `ids` (the region tokens), increasing.
        marked_regions: regions marked in the caption; `regions` and those whose token was cut off.
        ids: token ids of `text` without markers.
        text_only_ids: token ids of `text_only`.
        ids_2: token ids for SDXL's second text encoder; None with one text encoder.
        text_only_ids_2: likewise.
    """

    text: str
    text_only: str
    regions: tuple[str, ...]
    positions: tuple[int, ...]
    marked_regions: tuple[str, ...]
    ids: Int[Tensor, "1 l"]
    text_only_ids: Int[Tensor, "1 l"]
    ids_2: Int[Tensor, "1 l"] | None = None
    text_only_ids_2: Int[Tensor, "1 l"] | None = None


def compose_facial_prompt(
    prompt: str,
    *,
    caption: str | None = None,
    regions: Collection[str] = REGION_NAMES,
    tokenizers: Sequence[Any],
    style: FacialPromptStyle,
) -> FacialPrompt:
    """Join a prompt and the caption of a face, and find the token of every region.

    Args:
        prompt: what the user wants to see.
        caption: description of the face; None: the style's template.
        regions: the regions that have an image; regions whose word is not in the caption are dropped.
        tokenizers: one, or SDXL's two.
        style: wording, order and cutting.

    Raises:
        InvalidPrompt: the prompt contains a marker, or an unknown region is asked for.
    """
    _check(prompt, caption or "", regions)
    caption = style.template if caption is None else caption
    if style.max_caption is not None and len(caption) > style.max_caption:
        caption = ""
    compose = _compose_as_release if style.marking == "release" else _compose_clauses
    text, marked_regions, tokens = compose(prompt, caption, regions, tokenizers[0], style)
    fitted = tokens.fitted(style.length, tokenizers[0].pad_token_id, always_end=style.always_end)
    text_only = prompt if style.text_only == "prompt" else text.replace(_marker_in(style), "")
    second = tokenizers[1] if len(tokenizers) > 1 else None
    return FacialPrompt(
        text=text,
        text_only=text_only,
        regions=marked_regions[: len(fitted.positions)],
        positions=fitted.positions,
        marked_regions=marked_regions,
        ids=torch.tensor([fitted.ids]),
        text_only_ids=plain_ids(text_only, tokenizers[0], style.length),
        ids_2=None if second is None else _second_ids(text, second, style),
        text_only_ids_2=None if second is None else plain_ids(text_only, second, style.length),
    )


def plain_ids(text: str, tokenizer: Any, length: int | None) -> Int[Tensor, "1 l"]:
    """Token ids of a text without markers, cut (with an end token) and padded as the stock pipelines do."""
    tokens = tokenize_marked(text, tokenizer) if MARKER not in text else _literal(text, tokenizer)
    return torch.tensor([tokens.fitted(length, tokenizer.pad_token_id, always_end=True).ids])


def _marker_in(style: FacialPromptStyle) -> str:
    return MARKER if style.marking == "release" else f" {MARKER}"


def _second_ids(text: str, tokenizer: Any, style: FacialPromptStyle) -> Int[Tensor, "1 l"]:
    if not style.mark_all_streams:
        return plain_ids(text, tokenizer, style.length)
    tokens = tokenize_marked(text, tokenizer)
    return torch.tensor([tokens.fitted(style.length, tokenizer.pad_token_id, always_end=style.always_end).ids])


def _literal(text: str, tokenizer: Any) -> MarkedTokens:
    """Markers as the ordinary text that a tokenizer takes them for when it does not know them."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return MarkedTokens((tokenizer.bos_token_id, *ids, tokenizer.eos_token_id), ())


def _compose_as_release(
    prompt: str, caption: str, regions: Collection[str], tokenizer: Any, style: FacialPromptStyle
) -> tuple[str, tuple[str, ...], MarkedTokens]:
    marked, marked_regions = mark_as_release(caption, regions, MARKER)
    text = style.joined.format_map({"prompt": prompt, "caption": marked})
    tokens = tokenize_marked(text, tokenizer)
    too_long = style.length is not None and tokens.length_with_markers > style.length
    if too_long and style.joined_long is not None:
        text = style.joined_long.format_map({"prompt": prompt, "caption": marked})
        tokens = tokenize_marked(text, tokenizer)
    return text, marked_regions, tokens


def _compose_clauses(
    prompt: str, caption: str, regions: Collection[str], tokenizer: Any, style: FacialPromptStyle
) -> tuple[str, tuple[str, ...], MarkedTokens]:
    """The longest form of the caption that fits; the prompt is cut only when it is too long by itself."""
    prompt = prompt.strip().rstrip(".,;").rstrip()
    for clauses in _shorter_and_shorter(mark_clauses(caption, regions)):
        marked = ", ".join(clause.marked(MARKER) for clause in clauses)
        text = style.joined.format_map({"prompt": prompt, "caption": marked}) if prompt and marked else prompt or marked
        tokens = tokenize_marked(text, tokenizer)
        if style.length is None or len(tokens.ids) <= style.length:
            break
    return text, tuple(region for clause in clauses for region in clause.regions), tokens


def _shorter_and_shorter(clauses: list[Clause]) -> Iterator[list[Clause]]:
    """All clauses; without those that mark nothing, last first; the marked words alone, one fewer each time."""
    yield clauses
    while any(not clause.regions for clause in clauses):
        last = max(index for index, clause in enumerate(clauses) if not clause.regions)
        clauses = clauses[:last] + clauses[last + 1 :]
        yield clauses
    if clauses:
        words = [Clause(f"{word}\0", (region,), (word,)) for clause in clauses for region, word in _pairs(clause)]
        for count in range(len(words), -1, -1):
            yield words[:count]


def _pairs(clause: Clause) -> Iterator[tuple[str, str]]:
    return zip(clause.regions, clause.words, strict=True)


def _check(prompt: str, caption: str, regions: Collection[str]) -> None:
    if MARKER in prompt or MARKER in caption:
        raise InvalidPrompt(f"the prompt contains {MARKER}, which the library itself inserts; leave it out")
    unknown = sorted(set(regions) - set(REGION_NAMES))
    if unknown:
        raise InvalidPrompt(f"unknown region {unknown[0]!r}; choose from {', '.join(REGION_NAMES)}")
