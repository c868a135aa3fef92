"""Captions: fixed, measured, or asked a model."""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from consistentid.dataset.captions import (
    CaptionInput,
    Captions,
    MeasuredCaptioner,
    TemplateCaptioner,
    VisionLanguageCaptioner,
    captioner_of,
)
from consistentid.errors import InvalidSettings
from consistentid.faces.description import TEMPLATE, VisionLanguageDescriber
from consistentid.faces.detection import DetectedFace
from consistentid.faces.regions import BACKGROUND, CLOTH, HAIR, LEFT_EYE, NOSE, RIGHT_EYE, SKIN, UPPER_LIP

SIZE = 128
RED = (190, 30, 40)


def _item(background: tuple[int, int, int] = RED, **about: object) -> CaptionInput:
    """A drawn person with black hair in front of a plain background."""
    labels = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    labels[20:50, 40:88], labels[40:100, 44:84], labels[100:, 30:98] = HAIR, SKIN, CLOTH
    labels[56:60, 50:58], labels[56:60, 70:78], labels[66:76, 60:68] = LEFT_EYE, RIGHT_EYE, NOSE
    labels[84:88, 54:74] = UPPER_LIP
    colours = np.zeros((256, 3), np.uint8)
    colours[[BACKGROUND, SKIN, HAIR, CLOTH]] = background, (200, 150, 130), (15, 15, 15), (40, 60, 90)
    points = np.array([[54, 58], [74, 58], [64, 74], [56, 86], [72, 86]], np.float32)
    face = DetectedFace((44, 50, 84, 90), points, np.zeros(4, np.float32), 1.0)
    return CaptionInput(colours[labels], labels, face, about)


def test_measured_captions_say_what_is_seen_and_only_stated_genders() -> None:
    said, unsaid = MeasuredCaptioner().caption([_item(gender="woman"), _item()])
    assert "black" in said.overall
    assert "red" in said.overall
    assert "woman" in said.overall
    assert "person" in unsaid.overall
    assert said.facial == unsaid.facial
    assert "nose" in said.facial


def test_a_photo_is_always_worded_alike_and_photos_differ() -> None:
    items = [_item((190, 30, 40 + shade)) for shade in range(12)]
    captions = [each.overall for each in MeasuredCaptioner().caption(items)]
    assert captions == [MeasuredCaptioner().caption([item])[0].overall for item in items]
    assert len(set(captions)) > 4


def test_the_template_says_the_stated_gender() -> None:
    made = TemplateCaptioner().caption([_item(gender="man"), _item()])
    assert made == [Captions("A photo of a man.", TEMPLATE), Captions("A photo of a person.", TEMPLATE)]


class _Answering(VisionLanguageDescriber):
    """Answers with the question's subject and the image's width."""

    def answers(self, images: Sequence[Image.Image], question: str) -> list[str]:
        subject = "face" if "nose" in question else "photo"
        return [f"{subject} {image.width} of {len(images)}" for image in images]


def test_a_model_is_asked_both_questions_about_all_photos() -> None:
    asked = VisionLanguageCaptioner(_Answering("models/tiny"))
    assert asked.name == "vision-language tiny"
    assert asked.caption([_item()] * 3) == [Captions("photo 128 of 3", "face 96 of 3")] * 3
    assert asked.caption([]) == []


def test_captioners_are_made_by_name() -> None:
    assert captioner_of("measured").name == "measured"
    assert captioner_of("template").name == "template"
    assert captioner_of("vision-language org/model").name == "vision-language model"
    assert captioner_of("vllm org/model").name == "vllm model"
    for name in ("best", "vllm", "vision-language", "measured well"):
        with pytest.raises(InvalidSettings, match=f"'{name}' is no captioner; take template"):
            captioner_of(name)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_one_sentence_says_what_to_do() -> None:
    with pytest.raises(InvalidSettings, match="run `pip install"):
        captioner_of("vllm org/model").caption([_item()])
