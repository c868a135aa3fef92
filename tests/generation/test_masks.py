"""Automatic masks: where they lie, how they end, and what a picture looks like outside them."""

import numpy as np
import pytest
from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import HAIR
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.masks import MASK_NAMES, automatic_mask, size_like
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

PROMPT = "a portrait of a person"


def with_hair(face: FaceAnalysis) -> np.ndarray:
    labels = face.label_map.copy()
    labels[:30, 40:120] = HAIR
    return labels


def test_a_mask_covers_its_part_and_ends_softly(drawn: FaceAnalysis) -> None:
    labels = with_hair(drawn)
    for name in MASK_NAMES:
        hard = np.asarray(automatic_mask(labels, name, feather=0))
        soft = np.asarray(automatic_mask(labels, name, feather=0.05))
        assert set(np.unique(hard)) == {0, 255}
        assert soft[hard > 0].min() > 128, "all of the part is repainted"
        assert ((soft > 0) & (soft < 255)).any(), "the border is soft"
    assert np.asarray(automatic_mask(labels, "hair", feather=0))[:30, 40:120].all()
    head = np.asarray(automatic_mask(labels, "head", feather=0)) > 0
    parts = [np.asarray(automatic_mask(labels, name, feather=0)) > 0 for name in ("face", "hair", "ears")]
    assert np.array_equal(head, parts[0] | parts[1] | parts[2])


def test_the_face_has_no_holes(drawn: FaceAnalysis) -> None:
    face = np.asarray(automatic_mask(drawn.label_map, "face", feather=0)) > 0
    assert face[np.isin(drawn.label_map, (1, 4, 5, 10, 12, 13))].all()


@pytest.mark.parametrize(
    ("name", "feather", "message"),
    [("hand", 0.0, "choose from face"), ("hair", 0.0, "no hair is seen"), ("face", 0.7, "mask_feather 0.7")],
)
def test_masks_that_cannot_be_made(drawn: FaceAnalysis, name: str, feather: float, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        automatic_mask(drawn.label_map, name, feather=feather)


def test_outside_the_mask_the_photo_stays_bit_for_bit(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    portraits = generator.generate(
        drawn, PROMPT, task="inpaint", inputs={"mask_image": "face", "strength": 1.0}, steps=2, num_images=2
    )
    prepared = generator.prepare(
        GenerationRequest(drawn, PROMPT, GenerationSettings(steps=2), task="inpaint", inputs={"mask_image": "face"})
    )
    assert prepared.blend is not None
    mask = np.asarray(prepared.blend.mask)
    photo = np.asarray(drawn.image.resize((64, 64), Image.Resampling.LANCZOS))
    for portrait in portraits:
        made = np.asarray(portrait.image)
        assert made.shape == (64, 64, 3)
        assert np.array_equal(made[mask == 0], photo[mask == 0])
        assert not np.array_equal(made[mask == 255], photo[mask == 255])
    assert not portraits[0].settings.made_here


def test_another_picture_is_analysed_for_its_own_mask(
    generator: PortraitGenerator, drawn: FaceAnalysis, sample_photos: dict[str, object]
) -> None:
    target = Image.open(sample_photos["official-man"])  # type: ignore[arg-type]
    request = GenerationRequest(
        drawn, PROMPT, GenerationSettings(steps=1), task="inpaint", inputs={"mask_image": "face", "image": target}
    )
    prepared = generator.prepare(request)
    assert prepared.settings.size == (56, 72), "the proportions of the target, the area of the model"
    assert prepared.request.inputs["image"].size == (56, 72)
    assert generator.render([prepared])[0][0].image.size == (56, 72)


def test_a_feather_needs_an_automatic_mask(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    picture = Image.new("RGB", (64, 64))
    inputs = {"image": picture, "mask_image": picture.convert("L"), "mask_feather": 0.1}
    with pytest.raises(InvalidSettings, match="automatic masks"):
        generator.generate(drawn, PROMPT, task="inpaint", inputs=inputs, steps=1)
    with pytest.raises(InvalidSettings, match="needs the argument image"):
        generator.generate(drawn, PROMPT, task="inpaint", inputs={"mask_image": picture.convert("L")}, steps=1)


def test_sizes_keep_the_proportions() -> None:
    assert size_like(Image.new("RGB", (300, 600)), like=(512, 512), multiple=8) == (360, 728)
    assert size_like(Image.new("RGB", (4000, 3000)), like=(512, 768), multiple=8) == (728, 544)


def test_img2img_resizes_its_picture(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    inputs = {"image": Image.new("RGB", (300, 600), "grey"), "strength": 1.0}
    assert generator.generate(drawn, PROMPT, task="img2img", inputs=inputs, steps=1)[0].image.size == (48, 88)
    made = generator.generate(drawn, PROMPT, task="img2img", inputs=inputs, steps=1, size=(64, 48))
    assert made[0].image.size == (64, 48)
