"""Does a portrait show what the prompt asks for? Told by label maps and colours, not by the model that drew it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from consistentid.evaluation.measured import Measured
from consistentid.evaluation.recognisers import DlibRecogniser
from consistentid.faces.attributes import BACKGROUND_COLOURS, HAIR_COLOURS

ATTRIBUTES = ("expression", "hair", "background", "gender")
_COLOURS = {"hair": HAIR_COLOURS, "background": BACKGROUND_COLOURS}
_WEIGHTS = np.array([0.5, 1, 1])  # lightness counts half, as in `attributes.colour_name`


def known_values(attribute: str) -> tuple[str, ...]:
    """Values of an attribute that a prompt may ask for and that can be told.

    Raises:
        KeyError: the attribute is none of `ATTRIBUTES`.
    """
    simple = {"expression": ("smiling", "serious"), "gender": ("woman", "man")}
    return simple[attribute] if attribute in simple else tuple(_COLOURS[attribute])


def leaning(
    measured: Measured,
    attribute: str,
    asked: str,
    *,
    opposite: str,
    womanly: Float[np.ndarray, " d"] | None = None,
) -> float:
    """How far a portrait leans to what was asked, and away from its opposite; NaN when it cannot be told.

    Expression: the smile score. Hair and background: distance of the median colour (Lab) from the opposite's colour
    less that from the asked one's. Gender: dlib's identity embedding along the axis from men to women.

    Args:
        measured: of the portrait.
        attribute: one of `ATTRIBUTES`.
        asked: a value of `known_values`.
        opposite: another one.
        womanly: see `gender_axis`; without it gender cannot be told.
    """
    if attribute == "gender":
        embedding = measured.identity.get(DlibRecogniser.name)
        if embedding is None or womanly is None:
            return float("nan")
        return float(embedding @ womanly) * (1 if asked == "woman" else -1)
    found = measured.attributes
    if found is None:
        return float("nan")
    if attribute == "expression":
        return found.smile if asked == "smiling" else -found.smile
    lab = found.hair_lab if attribute == "hair" else found.background_lab
    colours = _COLOURS[attribute]
    far, near = (np.linalg.norm((lab - np.array(colours[name])) * _WEIGHTS) for name in (opposite, asked))
    return float(far - near)


def obeys(measured: Measured, asked: Mapping[str, str]) -> float:
    """Share of the asked hair, expression and background whose measured word is the asked one; NaN without any."""
    words = {name: value for name, value in asked.items() if name != "gender"}
    found = measured.attributes
    if found is None or not words:
        return float("nan")
    return float(np.mean([getattr(found, name) == value for name, value in words.items()]))


def gender_axis(
    embeddings: Mapping[str, Float[np.ndarray, " d"]], genders: Mapping[str, str], *, without: str
) -> Float[np.ndarray, " d"] | None:
    """From the mean man to the mean woman among real photos of other people than the one that is judged.

    Args:
        embeddings: of one photo per person.
        genders: "woman" or "man" of the people of whom it is known.
        without: the person who is left out.

    Returns:
        None with fewer than two women or two men.
    """
    sides = [
        [embeddings[name] for name in sorted(embeddings) if name != without and genders.get(name) == gender]
        for gender in ("woman", "man")
    ]
    if min(len(side) for side in sides) < 2:
        return None
    return np.mean(sides[0], axis=0) - np.mean(sides[1], axis=0)
