"""Prompts that say what was measured of a portrait, worded in many ways."""

from dataclasses import dataclass, replace

import numpy as np

_OPENINGS = ("a portrait photo of", "a photo of", "a portrait of", "a headshot of", "photo of", "a studio portrait of")
_EXPRESSIONS = {
    "smiling": ("a smiling {}", "a happy smiling {}", "a {} smiling", "a {} with a smile", "a laughing {}"),
    "serious": ("a serious {}", "a {} with a serious expression", "a serious {} not smiling", "a {} looking serious"),
}
_HAIR = ("with {} hair", "who has {} hair", "with {} coloured hair")
_BALD = ("with a bald head", "who is bald")
_BACKGROUNDS = (", {} background", " in front of a {} background", " on a {} background", " against a {} wall")


@dataclass(frozen=True)
class Attributes:
    """What a caption may say of a portrait; None is not said."""

    gender: str | None = None
    expression: str | None = None
    hair: str | None = None
    background: str | None = None

    def of_gender(self, gender: str | None) -> "Attributes":
        """The same with another gender."""
        return replace(self, gender=gender)

    def subset(self, rng: np.random.Generator, *, keep: float = 0.7) -> "Attributes":
        """Each attribute is kept with probability `keep`, so that the model learns both to obey and to choose."""
        values = (self.gender, self.expression, self.hair, self.background)
        return Attributes(*(value if value and rng.random() < keep else None for value in values))


def random_prompt(attributes: Attributes, rng: np.random.Generator) -> str:
    """A prompt that states the attributes."""
    who = attributes.gender or "person"
    if attributes.expression:
        who = str(rng.choice(_EXPRESSIONS[attributes.expression])).format(who)
    else:
        who = f"a {who}"
    parts = [str(rng.choice(_OPENINGS)), who]
    if attributes.hair == "bald":
        parts.append(str(rng.choice(_BALD)))
    elif attributes.hair:
        parts.append(str(rng.choice(_HAIR)).format(attributes.hair))
    background = str(rng.choice(_BACKGROUNDS)).format(attributes.background) if attributes.background else ""
    return " ".join(parts) + background


def corpus() -> list[str]:
    """Every phrase with every word, for the tokenizer's vocabulary."""
    from consistentid.faces.attributes import BACKGROUND_COLOURS, HAIR_COLOURS

    rng = np.random.default_rng(0)
    choices = (
        ("man", "woman", None),
        ("smiling", "serious", None),
        (*HAIR_COLOURS, "bald", None),
        (*BACKGROUND_COLOURS, None),
    )
    return [random_prompt(Attributes(*(rng.choice(np.array(c, object)) for c in choices)), rng) for _ in range(4000)]
