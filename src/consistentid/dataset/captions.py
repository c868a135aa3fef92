"""Two captions of a photo, behind one batch interface."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from consistentid.dataset.wording import Attributes, random_prompt
from consistentid.errors import InvalidSettings
from consistentid.faces.attributes import measure_attributes
from consistentid.faces.description import (
    TEMPLATE,
    Describer,
    GeometryDescriber,
    VisionLanguageDescriber,
    around_face,
)
from consistentid.faces.detection import DetectedFace
from consistentid.faces.vllm import VLLMDescriber


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
        return [Captions(f"A photo of a {_gender(item) or 'person'}.", TEMPLATE) for item in items]


def _gender(item: CaptionInput) -> str | None:
    """The word for a caption: stated, else estimated by the source."""
    given = item.about.get("gender") or item.about.get("gender_estimated")
    return given if isinstance(given, str) else None


class MeasuredCaptioner:
    """What is measured on the photo (hair, expression, background), in words that differ by photo, not by run.

    Args:
        describer: writes the facial caption.
    """

    name = "measured"

    def __init__(self, describer: Describer | None = None) -> None:
        self.describer = describer or GeometryDescriber()

    def caption(self, items: Sequence[CaptionInput]) -> list[Captions]:
        """See `Captioner.caption`."""
        return [Captions(self._overall(item), self._facial(item)) for item in items]

    def _overall(self, item: CaptionInput) -> str:
        seen = around_face(item.photo, item.face)
        found = measure_attributes(seen, around_face(item.label_map, item.face))
        attributes = Attributes(
            _gender(item),
            found.expression,
            found.hair,
            found.background,
        )
        return random_prompt(attributes, np.random.default_rng(zlib.crc32(seen.tobytes())))

    def _facial(self, item: CaptionInput) -> str:
        return self.describer.describe(item.photo, label_map=item.label_map, face=item.face)


class VisionLanguageCaptioner:
    """The paper's two questions, asked a vision-language model about all photos at once.

    Args:
        describer: the model.
    """

    def __init__(self, describer: VisionLanguageDescriber) -> None:
        self.describer = describer
        self.name = f"{describer.name} {Path(describer.source).name}"

    def caption(self, items: Sequence[CaptionInput]) -> list[Captions]:
        """See `Captioner.caption`."""
        photos = [item.photo for item in items]
        facial = self.describer.facial_captions(photos, [item.face for item in items])
        return list(map(Captions, self.describer.overall_captions(photos), facial))


def captioner_of(name: str) -> Captioner:
    """The captioner called "template", "measured", "vision-language MODEL" or "vllm MODEL".

    MODEL is a local folder or the hub id of a vision-language model that was downloaded before; it runs on the GPU when
    there is one.

    Raises:
        InvalidSettings: there is none of this name.
    """
    kind, _, model = name.partition(" ")
    if name == TemplateCaptioner.name:
        return TemplateCaptioner()
    if name == MeasuredCaptioner.name:
        return MeasuredCaptioner()
    if kind == VisionLanguageDescriber.name and model:
        return VisionLanguageCaptioner(VisionLanguageDescriber(model, offline=True, device=_device()))
    if kind == VLLMDescriber.name and model:
        return VisionLanguageCaptioner(VLLMDescriber(model))
    raise InvalidSettings(
        f'{name!r} is no captioner; take template, measured, "vision-language MODEL" or "vllm MODEL", where MODEL is a '
        "folder or a hub id"
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
