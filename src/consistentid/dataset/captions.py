"""Two captions of a photo, behind one batch interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from consistentid.faces.description import TEMPLATE
from consistentid.faces.detection import DetectedFace


@dataclass(frozen=True, eq=False)
class CaptionInput:
    """What a captioner may look at.

    Attributes:
        photo: (h, w, 3) upright RGB.
        label_map: (h, w) classes of `regions.LABEL_NAMES`.
        face: the face that is described.
        about: what the source states, for example `gender` and `age`.
    """

    photo: UInt8[np.ndarray, "h w 3"]
    label_map: UInt8[np.ndarray, "h w"]
    face: DetectedFace
    about: Mapping[str, object]


@dataclass(frozen=True)
class Captions:
    """The two captions of arXiv:2404.16771, section 3.1.

    Attributes:
        overall: of the whole photo.
        facial: of the face, names its regions.
    """

    overall: str
    facial: str


class Captioner(Protocol):
    """Writes both captions of many photos at once."""

    name: str

    def caption(self, items: Sequence[CaptionInput]) -> list[Captions]:
        """One pair of captions for each item, in their order."""
        ...


class TemplateCaptioner:
    """The same captions for everybody."""

    name = "template"

    def caption(self, items: Sequence[CaptionInput]) -> list[Captions]:
        """See `Captioner.caption`."""
        return [Captions(f"A photo of a {item.about.get('gender') or 'person'}.", TEMPLATE) for item in items]
