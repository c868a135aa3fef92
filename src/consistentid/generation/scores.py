"""How good a portrait is: who it shows, whether it follows the prompt, and how well the face is drawn."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from consistentid.errors import NoFaceFound
from consistentid.faces.analysis import FaceAnalyzer
from consistentid.faces.attributes import BACKGROUND_COLOURS, HAIR_COLOURS, measure_attributes
from consistentid.faces.detection import FaceDetector
from consistentid.identity.several_photos import quality

_ENLARGED = 256  # px, shorter side at which small portraits are analysed, as photos are
_EXPRESSIONS = {"smiling": "smiling", "laughing": "smiling", "serious": "serious"}
_SHARES = {"identity": 0.6, "adherence": 0.2, "quality": 0.2}


@dataclass(frozen=True)
class PortraitScores:
    """What was measured on a portrait; all from 0 to 1.

    Attributes:
        identity: cosine of the recogniser's embedding of the portrait and that which was asked for, not below 0.
        adherence: share of what the prompt asks for (expression, hair, background) that is measured; 1 without any.
        quality: see `several_photos.quality`.
    """

    identity: float
    adherence: float
    quality: float

    @property
    def total(self) -> float:
        """Their weighted mean; identity counts most."""
        return sum(share * getattr(self, name) for name, share in _SHARES.items())


NO_FACE = PortraitScores(0.0, 0.0, 0.0)


def score(
    picture: Image.Image, *, identity: Float[np.ndarray, " d"], prompt: str, analyzer: FaceAnalyzer
) -> PortraitScores:
    """Measure a portrait; `NO_FACE` when none is found in it.

    Args:
        picture: the portrait.
        identity: the recogniser's embedding of who it should show.
        prompt: what it should show.
        analyzer: with the same recogniser.
    """
    try:
        found = analyzer.analyze(enlarged(picture))
    except NoFaceFound:
        return NO_FACE
    asked = asked_of(prompt)
    measured = measure_attributes(found.photo, found.label_map)
    met = [getattr(measured, name) == value for name, value in asked.items()]
    return PortraitScores(
        identity=_cosine(found.identity_embedding, identity),
        adherence=float(np.mean(met)) if met else 1.0,
        quality=quality(found),
    )


def likeness(picture: Image.Image, identity: Float[np.ndarray, " d"], *, detector: FaceDetector) -> float:
    """The identity score alone, which is quicker; 0 without a face."""
    faces = detector.detect(np.asarray(enlarged(picture)))
    return max((_cosine(face.identity_embedding, identity) for face in faces), default=0.0)


def enlarged(picture: Image.Image) -> Image.Image:
    """A portrait at the size of photos, when it is smaller."""
    factor = max(1.0, _ENLARGED / min(picture.size))
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)


def _cosine(a: Float[np.ndarray, " d"], b: Float[np.ndarray, " d"]) -> float:
    return max(0.0, float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))


def asked_of(prompt: str) -> Mapping[str, str]:
    """The attributes that a prompt names and that can be measured: expression, hair, background."""
    text = prompt.lower()
    asked = {}
    for word, value in _EXPRESSIONS.items():
        if re.search(rf"\b{word}\b", text):
            asked["expression"] = value
    for attribute, colours in (("hair", HAIR_COLOURS), ("background", BACKGROUND_COLOURS)):
        names = "|".join(sorted(colours, key=len, reverse=True))
        found = re.search(rf"\b({names})(?: coloured)? {attribute}\b", text)
        if found:
            asked[attribute] = found.group(1)
    if re.search(r"\bbald\b", text):
        asked["hair"] = "bald"
    return asked
