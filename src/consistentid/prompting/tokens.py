"""Token ids of a marked text, and the positions of its marked words."""

from dataclasses import dataclass
from typing import Any

from consistentid.prompting.style import MARKER


@dataclass(frozen=True)
class MarkedTokens:
    """A marked text as tokens.

    Attributes:
        ids: token ids without markers, with start and end token, neither cut nor padded.
        positions: index in `ids` of the last token before each marker, i.e. of the marked word.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]

    @property
    def length_with_markers(self) -> int:
        """Tokens when each marker counts as one."""
        return len(self.ids) + len(self.positions)

    def fitted(self, length: int | None, pad: int, *, always_end: bool) -> "MarkedTokens":
        """Cut or padded to `length` tokens; positions that are cut off are dropped. None: as it is."""
        if length is None:
            return self
        ids = self.ids[:length]
        last = length
        if always_end and len(self.ids) > length:
            ids, last = (*ids[:-1], self.ids[-1]), length - 1
        ids += (pad,) * (length - len(ids))
        return MarkedTokens(ids, tuple(position for position in self.positions if position < last))


def tokenize_marked(text: str, tokenizer: Any) -> MarkedTokens:
    """Tokens of a text with markers.

    The pieces between markers are tokenised one by one: the same ids as with the marker as a special token, but the
    tokenizer stays as it is.
    """
    pieces = tokenizer(text.split(MARKER), add_special_tokens=False, verbose=False)["input_ids"]
    ids, positions = [tokenizer.bos_token_id], []
    for piece in pieces[:-1]:
        ids += piece
        positions.append(len(ids) - 1)
    return MarkedTokens((*ids, *pieces[-1], tokenizer.eos_token_id), tuple(positions))
