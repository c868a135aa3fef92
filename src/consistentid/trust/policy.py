"""What may be asked for: one small table of words and the hook for a user's own.

A word list is a fence, not a judge: it refuses the plain cases, in English, before anything is computed, and says so.
It cannot see meaning, other languages or the photo. Whoever runs a service adds hooks of their own and keeps the
pipeline's safety checker on.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from consistentid.errors import PromptRefused

Hook = Callable[[str], str | None]

# The one table. A star stands for any ending; phrases match across any spacing or punctuation.
EXPLICIT = (
    "blowjob* bondage bottomless breast breasts cleavage cum cumshot* dominatrix ejaculat* erection* erotic* "
    "exhibitionis* explicit fellatio fetish* genital* handjob* hentai horny intercourse masturbat* naked nipple* nsfw "
    "nude nudes nudity nudist* orgasm* orgy panties penis porn* pubic seductive* sex sexual* sexy sexi* slut* "
    "striptease* stripper* topless undress* unclothed upskirt vagina* voyeur* vulva whore* xxx"
).split() + ["without clothes", "no clothes", "bare breasts", "making love", "not safe for work"]
# Harmless for adults, refused when the prompt speaks of a minor.
SUGGESTIVE = (
    "alluring bathing bikini* bra busty corset* flirt* latex lewd lingerie lustful miniskirt* "
    "provocative* sensual* shirtless shower* skimpy stockings sultry swimsuit* swimwear tempting thong* underwear "
    "wet lap"
).split() + ["in bed", "on the bed", "tight clothes", "see through"]
MINOR = (
    "adolescen* babies baby boy boys child childlike children daughter fourteen girl girls grader* infant* juvenile* "
    "kid kids kindergart* lolita loli minor minors nephew newborn* niece preschool* preteen* pubescen* puberty "
    "schoolboy* schoolchild* schoolgirl* shota shotacon son teen teens teenag* toddler* tween* underage* "
    "youngster*"
).split() + ["high school", "middle school", "elementary school", "primary school", "little one"]
_ADULT_AGE = 18


@dataclass(frozen=True)
class PromptPolicy:
    """Decides whether a prompt may be used; a generator applies one by default.

    Attributes:
        refuse_sexualised: refuse explicit prompts about adults as well. Prompts that join minors with explicit or
            suggestive words are refused whatever this says.
        blocked: further words, names or phrases to refuse, with a star for any ending.
        hooks: further checks; each gets the prompt and returns a reason to refuse it, or None.
    """

    refuse_sexualised: bool = True
    blocked: tuple[str, ...] = ()
    hooks: tuple[Hook, ...] = field(default=())

    def check(self, prompt: str) -> None:
        """Accept the prompt, or refuse it.

        Raises:
            PromptRefused: the prompt breaks the policy; the message says which rule, in one sentence.
        """
        text = _normalise(prompt)
        explicit = _first(text, EXPLICIT)
        minor = _first(text, MINOR) or _young_age(text)
        if minor and (explicit or _first(text, SUGGESTIVE)):
            raise PromptRefused("the prompt sexualises a minor, which is never allowed")
        if explicit and self.refuse_sexualised:
            raise PromptRefused(
                f"the prompt asks for sexualised content (“{explicit}”); describe the portrait otherwise"
            )
        blocked = _first(text, self.blocked)
        if blocked:
            raise PromptRefused(f"the prompt contains “{blocked}”, which the policy of this installation blocks")
        for hook in self.hooks:
            reason = hook(prompt)
            if reason:
                raise PromptRefused(f"the prompt is refused: {reason}")


def _normalise(text: str) -> str:
    """Lower case, no accents, no invisible characters, every run of anything else one space."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    visible = "".join(c for c in decomposed if unicodedata.category(c) not in {"Mn", "Cf"})
    return " ".join(re.findall(r"\w+", visible.replace("_", " ")))


def _first(text: str, words: Iterable[str]) -> str | None:
    """The first word or phrase of the table that stands in normalised text."""
    for word in words:
        stem = _normalise(word)
        ending = r"\w*" if word.endswith("*") else ""
        match = re.search(rf"\b{re.escape(stem)}{ending}\b", text) if stem else None
        if match:
            return match.group()
    return None


def _young_age(text: str) -> str | None:
    """An age under 18 written in digits: 'age 12', '12 years old', '12yo'."""
    for pattern in (r"\b(\d{1,2}) ?(?:years?|yrs?|yo|y o)\b", r"\b(?:age|aged) (\d{1,2})\b"):
        for match in re.finditer(pattern, text):
            if int(match.group(1)) < _ADULT_AGE:
                return match.group()
    return None
