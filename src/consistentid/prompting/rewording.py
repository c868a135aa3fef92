"""Other words for single regions in the caption of a face."""

import re
from collections.abc import Mapping

from consistentid.errors import InvalidPrompt
from consistentid.faces.regions import REGIONS
from consistentid.prompting.marking import word_pattern

_BETWEEN_PHRASES = re.compile(r"[,.;!?\n]+|\b(?:and|with|behind)\b", re.IGNORECASE)


def reworded(caption: str, words: Mapping[str, str]) -> str:
    """The caption with the user's words for some regions.

    They take the place of the phrase that names the region; where that names another region too, they go before the
    region's word. A region that the caption does not name is added at its end.

    Args:
        caption: of a face.
        words: by region; where they do not name the region, its word is put behind them.

    Raises:
        InvalidPrompt: the words of a region name another one.
    """
    for region, own in words.items():
        _check(region, own)
        phrase = own if word_pattern(region).search(own) else f"{own} {region}"
        start, end = _phrase_of(caption, region)
        if start == end:
            caption = f"{caption.rstrip(' .,;')}, {phrase}" if caption.strip() else phrase
        elif _others_in(caption[start:end], region):
            word = word_pattern(region).search(caption[start:end])
            assert word is not None
            caption = f"{caption[: start + word.start()]}{own} {caption[start + word.start() :]}"
        else:
            caption = f"{caption[:start]}{phrase}{caption[end:]}"
    return caption


def phrase_of(caption: str, region: str) -> str | None:
    """The words with which a caption names a region, None when it does not name it or others in the same phrase."""
    start, end = _phrase_of(caption, region)
    phrase = caption[start:end]
    return phrase if phrase and not _others_in(phrase, region) else None


def _phrase_of(caption: str, region: str) -> tuple[int, int]:
    """Where the phrase that first names a region begins and ends; an empty one at 0 when there is none."""
    word = word_pattern(region).search(caption)
    if word is None:
        return 0, 0
    borders = list(_BETWEEN_PHRASES.finditer(caption))
    start = max((border.end() for border in borders if border.end() <= word.start()), default=0)
    end = min((border.start() for border in borders if border.start() >= word.end()), default=len(caption))
    inside = caption[start:end]
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())


def _check(region: str, words: str) -> None:
    others = _others_in(words, region)
    if others:
        raise InvalidPrompt(f"the words {words!r} for {region} name {others[0]}; give each region its own words")


def _others_in(phrase: str, region: str) -> list[str]:
    return [other.name for other in REGIONS if other.name != region and word_pattern(other.name).search(phrase)]
