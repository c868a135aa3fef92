"""A person put into an existing photo, on the tiny pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from consistentid.errors import InvalidSettings, NoFaceFound
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.crops import Square
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.in_place import _ending_inside, put_into
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

MAN = Path(__file__).parents[2] / "examples/photos/official-man.jpg"


def test_the_face_changes_and_the_rest_stays(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    before = np.asarray(Image.open(MAN).convert("RGB"))
    changed = {}
    for part in ("nose", "face"):
        inputs = {} if part == "face" else {"mask_image": part, "strength": 1.0}
        request = GenerationRequest(drawn, "a person", GenerationSettings.of(steps=3, num_images=2), inputs=inputs)
        first, second = put_into(generator, request, MAN)
        after = np.asarray(first.image)
        assert after.shape == before.shape
        assert not np.array_equal(after, np.asarray(second.image))
        assert first.settings.task == "inpaint"
        changed[part] = (after != before).any(-1)
    assert 0 < changed["nose"].mean() < changed["face"].mean()
    square = Square.on_face(generator.analysed(MAN).analysis.landmarks)
    left, top, side = round(square.left), round(square.top), round(square.side)
    changed["face"][max(0, top) : top + side, max(0, left) : left + side] = False
    assert not changed["face"].any(), "outside the crop nothing changes"


def test_a_cast_of_the_model_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = PortraitGenerator.from_pretrained("embedded", cache=False)
    decode, man = embedded.pipeline.vae.decode, embedded.analysed(MAN).analysis
    asked = GenerationRequest(man, "a man", GenerationSettings.of(steps=6))
    before = np.asarray(put_into(embedded, asked, MAN)[0].image, float)
    red = torch.tensor([-0.2, 0.0, 0.0])[:, None, None]
    monkeypatch.setattr(embedded.pipeline.vae, "decode", lambda z, **how: (decode(z, **how)[0] + red,))
    after = np.asarray(put_into(embedded, asked, MAN)[0].image, float)
    nose = man.region_masks["nose"] > 0
    assert np.abs((after - before)[nose].mean(0)).max() < 6, "the cast is 25 of 255"


def test_masks_end_before_the_border() -> None:
    mask = np.asarray(_ending_inside(Image.new("L", (100, 50), 255)))
    assert mask[25, 50] == 255
    assert mask[0].max() == mask[:, 0].max() == mask[-1].max() == mask[:, -1].max() == 0
    assert (np.diff(mask[25, :50].astype(int)) >= 0).all()


def test_refusals(generator: PortraitGenerator, drawn: FaceAnalysis, tmp_path: Path) -> None:
    for wrong in ({"task": "img2img"}, {"inputs": {"mask_image": Image.new("L", (8, 8))}}):
        with pytest.raises(InvalidSettings, match="by inpainting with an automatic mask"):
            put_into(generator, GenerationRequest(drawn, "a person", **wrong), MAN)
    with pytest.raises(InvalidSettings, match="of 1 steps, strength leaves none to run"):
        put_into(generator, GenerationRequest(drawn, "a person", GenerationSettings(steps=1)), MAN)
    Image.new("RGB", (40, 40)).save(tmp_path / "blank.png")
    with pytest.raises(NoFaceFound, match=r"no face in blank\.png"):
        put_into(generator, GenerationRequest(drawn, "a person"), tmp_path / "blank.png")
