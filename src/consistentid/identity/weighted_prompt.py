"""Prompts with weights in compel's syntax, such as `a (smiling)1.3 woman` or `smiling++`."""

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Self

from consistentid.errors import InvalidPrompt, InvalidSettings

Fragments = tuple[tuple[str, float], ...]  # pieces of a text, each with its weight

_DEPTH = 4  # of parentheses; each further level takes compel's parser five times as long
_HEAVIEST = 100  # more than anybody needs, and far from overflow
_TOO_HEAVY = f"a weight in the prompt is larger than {_HEAVIEST}; compel advises up to about 1.6"
_OPERATORS = re.compile(r"\.(?:blend|swap|and|add)\s*\(|(?:use|with)Lora\s*\(")


@dataclass(frozen=True)
class WeightedPrompt:
    """A prompt whose words have weights.

    Attributes:
        fragments: its text in pieces; neighbours differ in weight.
    """

    fragments: Fragments

    @classmethod
    def parse(cls, prompt: str) -> Self:
        """Read compel's syntax.

        Raises:
            InvalidPrompt: the prompt blends, joins or swaps prompts or loads LoRAs, nests too deeply, or a weight is
                too large.
            InvalidSettings: compel is not installed.
        """
        parser = _parser()
        operator = _OPERATORS.search(prompt)
        if operator is not None:
            raise InvalidPrompt(
                f"the prompt contains {operator.group()}…), and only weights can be used here; leave it out"
            )
        if _depth(prompt) > _DEPTH:
            raise InvalidPrompt(f"the prompt's parentheses are nested more than {_DEPTH} deep; multiply the weights")
        try:
            parts = [part for flat in parser.parse_conjunction(prompt).prompts for part in flat.children]
        except OverflowError:  # thousands of plus signs
            raise InvalidPrompt(_TOO_HEAVY) from None
        if any(part.weight > _HEAVIEST for part in parts):
            raise InvalidPrompt(_TOO_HEAVY)
        return cls(_merged([(" ".join(part.text.split()), part.weight) for part in parts], between=" "))

    @property
    def text(self) -> str:
        """The prompt without syntax."""
        return " ".join(text for text, _ in self.fragments)

    def trimmed(self) -> Self:
        """Without the punctuation at its end."""
        fragments = list(self.fragments)
        while fragments:
            text, weight = fragments.pop()
            rest = text.rstrip(string.whitespace + ".,;")
            if rest:
                return type(self)((*fragments, (rest, weight)))
        return type(self)(())

    def within(self, text: str) -> Fragments:
        """The fragments of a longer text that starts or ends with this prompt; what is added has weight 1."""
        if text.startswith(self.text):
            before, after = "", text[len(self.text) :]
        else:
            before, after = text[: len(text) - len(self.text)], ""
        return _merged([(before, 1.0), *self.fragments, (after, 1.0)], between="")


def text_of(prompt: str, *, weighted: bool) -> str:
    """What the text encoder reads of a prompt.

    Args:
        prompt: as the user wrote it.
        weighted: whether it is in compel's syntax.

    Raises:
        InvalidPrompt, InvalidSettings: as in `WeightedPrompt.parse`.
    """
    return WeightedPrompt.parse(prompt).text if weighted else prompt


def _merged(pieces: Iterable[tuple[str, float]], *, between: str) -> Fragments:
    """Without empty pieces, and with neighbours of one weight as one."""
    groups = groupby((piece for piece in pieces if piece[0]), key=itemgetter(1))
    return tuple((between.join(text for text, _ in group), weight) for weight, group in groups)


def _parser() -> Any:
    try:
        from compel.prompt_parser import PromptParser
    except ImportError:
        raise InvalidSettings("prompt_weighting needs compel: pip install 'consistentid[weighting]'") from None
    return PromptParser()


def _depth(prompt: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"(?<!\\)[()]", prompt):
        depth = depth + 1 if bracket == "(" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest
