"""Two captions of a photo, behind one batch interface."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

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

CaptionerName = Literal["template", "measured", "vision-language", "vllm"]


@dataclass(frozen=True, eq=False)
class CaptionInput:
    """What a captioner may look at.

    Attributes:
        photo: (h, w, 3) upright RGB.
        label_map: (h, w) classes of `regions.LABEL_NAMES`.
        face: the face that is described.
        about: what the source states, for example `gender` and `age`; `caption` and `facial_caption` win.
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
        gender = item.about.get("gender")
        attributes = Attributes(
            gender if gender in ("man", "woman") else None,
            found.expression,
            found.hair,
            found.background,
        )
        return random_prompt(attributes, np.random.default_rng(zlib.crc32(seen.tobytes())))

    def _facial(self, item: CaptionInput) -> str:
        return self.describer.describe(item.photo, label_map=item.label_map, face=item.face)


class VisionLanguageCaptioner:
    """The paper's two questions, asked a vision-language model.

    Args:
        describer: the model.
        batch_size: photos asked about at once.
    """

    def __init__(self, describer: VisionLanguageDescriber, *, batch_size: int = 8) -> None:
        self.describer = describer
        self.batch_size = batch_size
        self.name = f"{describer.name} {Path(describer.source).name}"

    def caption(self, items: Sequence[CaptionInput]) -> list[Captions]:
        """See `Captioner.caption`."""
        found: list[Captions] = []
        for start in range(0, len(items), self.batch_size):
            asked = items[start : start + self.batch_size]
            photos = [item.photo for item in asked]
            facial = self.describer.facial_captions(photos, [item.face for item in asked])
            found += map(Captions, self.describer.overall_captions(photos), facial)
        return found


class StatedFirst:
    """Captions that the source states, and a captioner's where one is missing."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner
        self.name = captioner.name

    def caption(self, items: Sequence[CaptionInput]) -> list[Captions]:
        """See `Captioner.caption`."""
        stated = [(_stated(item, "caption"), _stated(item, "facial_caption")) for item in items]
        asked = [item for item, captions in zip(items, stated, strict=True) if not all(captions)]
        made = iter(self.captioner.caption(asked))
        found = []
        for overall, facial in stated:
            own = Captions(overall, facial) if overall and facial else next(made)
            found.append(Captions(overall or own.overall, facial or own.facial))
        return found


def _stated(item: CaptionInput, key: str) -> str:
    value = item.about.get(key)
    return value.strip() if isinstance(value, str) else ""


def captioner(
    name: CaptionerName,
    *,
    source: str | None = None,
    offline: bool = False,
    device: str = "cpu",
    batch_size: int = 8,
) -> Captioner:
    """A captioner by its name; captions that the source states win.

    Args:
        name: template, measured, vision-language (transformers) or vllm.
        source: local folder or hub id of the vision-language model.
        offline: never download.
        device: of the vision-language model; vLLM chooses its own.
        batch_size: photos asked about at once.

    Raises:
        InvalidSettings: there is no such captioner, or it needs a model and none is given.
    """
    if name == "template":
        return StatedFirst(TemplateCaptioner())
    if name == "measured":
        return StatedFirst(MeasuredCaptioner())
    if name not in get_args(CaptionerName):
        raise InvalidSettings(f"no captioner {name!r}; there are {', '.join(get_args(CaptionerName))}")
    if source is None:
        raise InvalidSettings(f"the captioner {name} needs a vision-language model; give its folder or hub id")
    if name == "vllm":
        from consistentid.faces.vllm import VLLMDescriber

        describer: VisionLanguageDescriber = VLLMDescriber(source, device=device)
    else:
        describer = VisionLanguageDescriber(source, offline=offline, device=device)
    return StatedFirst(VisionLanguageCaptioner(describer, batch_size=batch_size))
