"""The caption of a face, behind one protocol: a fixed phrase, measured words, or a vision-language model."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from consistentid.errors import WeightsNotFound
from consistentid.faces.attributes import eye_distance, measure_attributes
from consistentid.faces.crops import Square
from consistentid.faces.detection import DetectedFace
from consistentid.faces.regions import (
    GLASSES,
    LEFT_EAR,
    LEFT_EYE,
    LIPS,
    LOWER_LIP,
    NOSE,
    REGIONS,
    RIGHT_EAR,
    RIGHT_EYE,
    UPPER_LIP,
    region_masks,
)

logger = logging.getLogger(__name__)

TEMPLATE = "The person has one face, one nose, two eyes, two ears, and one mouth."  # of the SD 1.5 release

# The two questions of arXiv:2404.16771, section 3.1, in our words: one for the photo, one for the face.
OVERALL_QUESTION = "Describe the person in this photo in one sentence: how they look, what they wear and what they do."
FACIAL_QUESTION = (
    "Describe the facial features of this person in one sentence, with one short phrase for each of these words: "
    "face, ears, eyes, nose, mouth."
)

_ATTRIBUTES_SCALE = 2.4  # the part of the photo that is measured, in face boxes: hair and some background

# Words by measured proportion: below the first number, above the second. The numbers are the 20th and 80th percentile
# over 482 openly licensed portraits (see the model card); d is the distance of the eyes.
_FACE_SHAPE = (1.44, 1.64)  # height / width
_EYE_OPENING = (0.193, 0.264)  # area of an eye / its width squared
_NOSE_WIDTH = (0.687, 0.772)  # in d
_NOSE_LENGTH = (0.762, 0.858)  # in d
_LIPS_AREA = (0.142, 0.210)  # in d squared


class Describer(Protocol):
    """Writes the caption of a face; it should name the regions, because only named regions get a token."""

    name: str

    def describe(
        self, photo: UInt8[np.ndarray, "h w 3"], *, label_map: UInt8[np.ndarray, "h w"], face: DetectedFace
    ) -> str:
        """One line of text."""
        ...


class TemplateDescriber:
    """The same phrase for everybody, as in the paper's own inference."""

    name = "template"

    def __init__(self, text: str = TEMPLATE) -> None:
        self.text = text

    def describe(
        self,
        photo: UInt8[np.ndarray, "h w 3"],  # noqa: ARG002
        *,
        label_map: UInt8[np.ndarray, "h w"],  # noqa: ARG002
        face: DetectedFace,  # noqa: ARG002
    ) -> str:
        """See `Describer.describe`."""
        return self.text


class GeometryDescriber:
    """Words measured on the label map: shapes of the regions that are visible and, if asked for, hair and smile.

    Args:
        changing: also say what a prompt may want to change: hair colour and expression.
    """

    name = "geometry"

    def __init__(self, *, changing: bool = True) -> None:
        self.changing = changing

    def describe(
        self, photo: UInt8[np.ndarray, "h w 3"], *, label_map: UInt8[np.ndarray, "h w"], face: DetectedFace
    ) -> str:
        """See `Describer.describe`."""
        labels = around_face(label_map, face)
        visible = region_masks(labels)
        if not visible:
            return TEMPLATE
        hair, expression = None, None
        if self.changing:
            attributes = measure_attributes(around_face(photo, face), labels)
            hair, expression = attributes.hair, attributes.expression
        words = {
            "face": _face_words(visible.get("face"), hair),
            "ears": _ears_words(labels),
            "eyes": _eyes_words(labels),
            "nose": _nose_words(labels),
            "mouth": _mouth_words(labels, expression),
        }
        parts = [words[region.name] for region in REGIONS if region.name in visible]
        listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
        return f"The person has {listed}."


def around_face(values: np.ndarray, face: DetectedFace) -> np.ndarray:
    """The part of a photo or label map around the face, cut at the border."""
    square = Square.around(face.box, scale=_ATTRIBUTES_SCALE)
    left, top = max(0, round(square.left)), max(0, round(square.top))
    return values[top : round(square.top + square.side), left : round(square.left + square.side)]


def _between(value: float, limits: tuple[float, float], low: str, high: str) -> str:
    """The word for a small or a large value, with a space behind it; nothing for usual ones."""
    return f"{low} " if value < limits[0] else f"{high} " if value > limits[1] else ""


def _extent(mask: np.ndarray) -> tuple[int, int]:
    """Height and width of the smallest upright rectangle around a mask."""
    rows, columns = np.nonzero(mask)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def _face_words(mask: np.ndarray | None, hair: str | None) -> str:
    if mask is None:
        return "a face"
    height, width = _extent(mask)
    shape = _between(height / width, _FACE_SHAPE, "round", "long")
    top = " and a bald head" if hair == "bald" else f" with {hair} hair" if hair else ""
    return f"{_article(shape)} {shape}face{top}"


def _ears_words(labels: np.ndarray) -> str:
    both = (labels == LEFT_EAR).any() and (labels == RIGHT_EAR).any()
    return "two ears" if both else "one visible ear"


def _eyes_words(labels: np.ndarray) -> str:
    openings = []
    for label in (LEFT_EYE, RIGHT_EYE):
        mask = labels == label
        if mask.any():
            openings.append(mask.sum() / _extent(mask)[1] ** 2)
    count = "one visible" if len(openings) == 1 else "two"
    shape = _between(float(np.mean(openings)), _EYE_OPENING, "narrow", "wide open") if openings else ""
    glasses = " behind glasses" if (labels == GLASSES).any() else ""
    return f"{count} {shape}{'eye' if count == 'one visible' else 'eyes'}{glasses}"


def _nose_words(labels: np.ndarray) -> str:
    height, width = _extent(labels == NOSE)
    distance = eye_distance(labels)
    length = _between(height / distance, _NOSE_LENGTH, "short", "long")
    breadth = _between(width / distance, _NOSE_WIDTH, "narrow", "broad")
    return f"a {length}{breadth}nose"


def _mouth_words(labels: np.ndarray, expression: str | None) -> str:
    mood = f"{expression} " if expression else ""
    area = np.isin(labels, (UPPER_LIP, LOWER_LIP)).sum() / eye_distance(labels) ** 2
    lips = _between(float(area), _LIPS_AREA, "thin", "full") if np.isin(labels, LIPS).any() else ""
    return f"a {mood}mouth" + (f" with {lips}lips" if lips else "")


def _article(word: str) -> str:
    return "an" if word[:1] in "aeiou" and word else "a"


class VisionLanguageDescriber:
    """Any image-text-to-text model of transformers: LLaVA, Qwen2.5-VL, ...

    Args:
        source: local folder or hub id.
        offline: never download.
        device: where it runs.
        dtype: "auto" takes the precision that the weights were saved in.
        max_new_tokens: longest answer.
        question: what `describe` asks about the face.
    """

    name = "vision-language"

    def __init__(
        self,
        source: str | Path,
        *,
        offline: bool = False,
        device: str = "cpu",
        dtype: str = "auto",
        max_new_tokens: int = 120,
        question: str = FACIAL_QUESTION,
    ) -> None:
        self.source = str(source)
        self.offline = offline
        self.device = device
        self.dtype = dtype
        self.max_new_tokens = max_new_tokens
        self.question = question

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText

        try:
            processor = still_processor(self.source, offline=self.offline)
            model = AutoModelForImageTextToText.from_pretrained(
                self.source, local_files_only=self.offline, dtype=self.dtype
            )
        except (OSError, ValueError, ImportError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise WeightsNotFound(
                f"no vision-language model at {self.source}; give a local folder or a hub id ({reason})"
            ) from error
        if getattr(processor, "chat_template", None) is None:
            raise WeightsNotFound(f"{self.source} has no chat template; take an instruction-tuned model")
        return processor, model.eval().to(self.device)

    def describe(
        self,
        photo: UInt8[np.ndarray, "h w 3"],
        *,
        label_map: UInt8[np.ndarray, "h w"],  # noqa: ARG002  the model sees the photo
        face: DetectedFace,
    ) -> str:
        """The paper's facial caption; see `Describer.describe`."""
        return self.facial_captions([photo], [face])[0]

    def facial_captions(self, photos: Sequence[UInt8[np.ndarray, "h w 3"]], faces: Sequence[DetectedFace]) -> list[str]:
        """The paper's facial captions, asked about the part of each photo around its face, in one batch."""
        images = [Image.fromarray(around_face(photo, face)) for photo, face in zip(photos, faces, strict=True)]
        captions = self.answers(images, self.question)
        for caption in captions:
            if not any(word in caption.lower() for region in REGIONS for word in region.words):
                # No caption in the log: it is personal, and logs are kept and passed on.
                logger.warning("a caption by %s names no facial region, so no region gets a token", self.source)
        return captions

    def overall_captions(self, photos: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[str]:
        """The paper's overall captions of whole photos, in one batch."""
        return self.answers([Image.fromarray(photo) for photo in photos], OVERALL_QUESTION)

    def answers(self, images: Sequence[Image.Image], question: str) -> list[str]:
        """The model's greedy answers to one question about several images, on one line each."""
        import torch

        if not images:
            return []
        processor, model = self._parts
        inputs = processor.apply_chat_template(
            [_conversation(image, question) for image in images],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": len(images) > 1, "padding_side": "left"},
        ).to(self.device, dtype=model.dtype)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [" ".join(text.split()) for text in processor.batch_decode(new, skip_special_tokens=True)]


def _conversation(image: Image.Image, question: str) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def still_processor(source: str, *, offline: bool) -> Any:
    """A model's processor without its part for videos, which alone needs torchvision (Qwen2.5-VL and others)."""
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = AutoConfig.from_pretrained(source, local_files_only=offline)
    if type(config) not in PROCESSOR_MAPPING:
        return AutoProcessor.from_pretrained(source, local_files_only=offline)
    whole = PROCESSOR_MAPPING[type(config)]
    if "video_processor" not in whole.get_attributes():
        return whole.from_pretrained(source, local_files_only=offline)
    kept = [name for name in whole.get_attributes() if name != "video_processor"]
    still: Any = type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda _: kept)})
    return still.from_pretrained(source, local_files_only=offline)
