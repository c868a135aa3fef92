"""What released checkpoints expect where the caller leaves it open: the caption of each task, and which face."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import WIDTH, tiny_pipeline

from consistentid.errors import InvalidData
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation import loading
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.presets import PRESETS
from consistentid.generation.request import GenerationRequest
from consistentid.generation.resolve import resolved, with_caption
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.config import OFFICIAL_SD15, OFFICIAL_SDXL, AdapterConfig, Quirks
from consistentid.identity.dlib_image_encoder import DlibImageEncoder

SD15 = "The person has one face, one nose, two eyes, two ears, and one mouth."
SDXL = "The person has one face, one nose, two eyes, two ears, and a mouth."
INPAINT = "The person has one nose, two eyes, two ears, and a mouth."
SETTINGS = GenerationSettings()


def config_of(quirks: Quirks) -> AdapterConfig:
    small = {"text_dim": WIDTH, "projector_width": WIDTH, "facial_width": WIDTH, "facial_depth": 1, "lora_rank": 4}
    return AdapterConfig.preset("embedded", **small, quirks=quirks)


@pytest.mark.parametrize(("quirks", "words"), [(OFFICIAL_SD15, SD15), (OFFICIAL_SDXL, SDXL)])
def test_each_base_has_the_caption_it_was_trained_with(
    quirks: Quirks, words: str, drawn: FaceAnalysis, tmp_path: Path
) -> None:
    pipeline = tiny_pipeline(tmp_path)
    adapter = IdentityAdapter.new(config_of(quirks), pipeline.unet)
    conditioner = Conditioner.from_pipeline(pipeline, adapter, image_encoder=DlibImageEncoder())
    regions = ("face", "eyes", "mouth")
    prompt = conditioner.facial_prompt("a man", drawn, regions=regions)
    assert prompt.text == conditioner.facial_prompt("a man", drawn, regions=regions, caption=words).text
    assert ("a mouth" in prompt.text) == (words == SDXL)


def test_the_analyzer_of_a_release_leaves_the_caption_to_its_style(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "face_parsing.pth").touch()
    adapter = SimpleNamespace(config=AdapterConfig.preset("sdxl"))
    analyzer = loading.analyzer_for("unused", adapter, tmp_path, device="cpu", offline=True)
    assert analyzer is not None
    assert analyzer.describer is None


def test_inpainting_has_a_caption_of_its_own(drawn: FaceAnalysis) -> None:
    sd15, sdxl = AdapterConfig.preset("sd15"), AdapterConfig.preset("sdxl")
    for task in ("inpaint", "controlnet-inpaint"):
        assert with_caption(SETTINGS, drawn, task=task, config=sd15).caption == INPAINT
    assert with_caption(SETTINGS, drawn, task="img2img", config=sd15).caption is None
    assert with_caption(SETTINGS, drawn, task="inpaint", config=sdxl).caption is None
    own = GenerationSettings(caption="a face")
    assert with_caption(own, drawn, task="inpaint", config=sd15) == own


def test_inpainting_is_conditioned_with_it(drawn: FaceAnalysis, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path)
    generator = PortraitGenerator(pipeline, IdentityAdapter.new(config_of(OFFICIAL_SD15), pipeline.unet), analyzer=None)
    picture = Image.new("RGB", (64, 64))
    inputs = {"image": picture, "mask_image": picture.convert("L")}
    prepared = generator.prepare(GenerationRequest(drawn, "a man", task="inpaint", inputs=inputs))
    said = prepared.embeddings.conditioning.facial_prompts[0]
    assert said.text == generator.conditioner.facial_prompt("a man", drawn, regions=said.regions, caption=INPAINT).text
    assert "a mouth" in said.text
    assert prepared.settings.caption == INPAINT


def test_a_face_without_lips_or_an_eye_goes_through_official_mode_only(drawn: FaceAnalysis, tmp_path: Path) -> None:
    hidden = np.where(np.isin(drawn.label_map, (4, 12, 13)), 1, drawn.label_map).astype(np.uint8)
    face = FaceAnalysis.from_parts(drawn.photo, hidden, drawn.identity_embedding)
    pipeline = tiny_pipeline(tmp_path)
    for quirks in (OFFICIAL_SD15, Quirks()):
        adapter = IdentityAdapter.new(config_of(quirks), pipeline.unet)
        generator = PortraitGenerator(pipeline, adapter, analyzer=None)
        request = GenerationRequest(face, "a man")
        if quirks is OFFICIAL_SD15:
            assert torch.isfinite(generator.prepare(request).embeddings.identity_tokens).all()
        else:
            with pytest.raises(InvalidData, match="lacks an eye or the nose"):
                generator.prepare(request)
        adapter.detach()


def test_the_release_takes_the_surest_face_when_nobody_chose(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path)

    def face(base: str, settings: GenerationSettings = SETTINGS) -> int | str | None:
        config = AdapterConfig.preset(base)  # type: ignore[arg-type]
        return resolved(settings, preset=PRESETS[base], config=config, pipeline=pipeline).face

    assert [face(base) for base in ("sd15", "sdxl", "embedded")] == ["surest", "surest", "largest"]
    assert face("sd15", GenerationSettings(face="largest")) == "largest"
    assert face("sd15", GenerationSettings(face=0)) == 0
