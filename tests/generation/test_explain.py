"""Attention of a run: the picture stays, maps are probabilities, numbers follow eq. 1."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.attention_sheet import attention_sheet, heat_over, save_attention_sheet
from consistentid.generation.donors import Donors
from consistentid.generation.explain import Explanation, _inside_less_outside, explain, explain_photo
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.presets import PRESETS
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.attention_maps import AttentionRecorder

PROMPT = "a portrait of a person"


@pytest.fixture
def blind(fresh_generator: PortraitGenerator) -> PortraitGenerator:
    """Without an analyzer, which would look for faces in noise for long."""
    return PortraitGenerator(fresh_generator.pipeline, fresh_generator.adapter, analyzer=None)


@pytest.mark.parametrize(("size", "latents"), [(None, (8, 8)), ((48, 80), (10, 6))])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_picture_stays_and_maps_are_probabilities(
    blind: PortraitGenerator,
    drawn: FaceAnalysis,
    size: tuple[int, int] | None,
    latents: tuple,
    guidance: float,
) -> None:
    settings = GenerationSettings.of(steps=3, num_images=2, size=size, guidance=guidance)
    found = explain(blind, GenerationRequest(drawn, PROMPT, settings))
    plain = blind.generate(drawn, PROMPT, batch_size=1, **settings.model_dump(exclude_unset=True))
    for one, other in zip(found, plain, strict=True):
        assert np.array_equal(np.asarray(one.portrait.image), np.asarray(other.image))
        assert one.tokens == ("face", "ears", "eyes", "nose", "mouth", *(f"identity {k}" for k in range(1, 5)))
        assert one.maps.shape == (3, 9, *latents)
        assert one.maps.min() >= 0
        np.testing.assert_allclose(one.maps[:, 5:].sum(1), 1, atol=1e-5)  # identity tokens compete among themselves
        assert (one.maps[:, :5].sum(1) < 1).all()
        assert one.localisation == {}, "nobody looked for a face"
    assert not any(module._forward_hooks for module in blind.pipeline.unet.modules())


def test_photos_side_by_side_have_tokens_of_their_own(blind: PortraitGenerator, drawn: FaceAnalysis) -> None:
    settings = GenerationSettings.of(steps=1, combine="concatenate", weights={"identity": 0.5})
    one = explain(blind, GenerationRequest(drawn, PROMPT, settings, donors=Donors(same=(drawn,))))[0]
    assert one.tokens[-1] == "identity 8"
    without = explain(blind, GenerationRequest(drawn, PROMPT, GenerationSettings.of(steps=1, identity_scale=0)))[0]
    assert without.tokens == ("face", "ears", "eyes", "nose", "mouth")
    assert without.maps.shape[1] == 5


def test_identity_tokens_of_a_giver_are_read_in_the_regions_place(
    blind: PortraitGenerator, drawn: FaceAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(drawn, identity_embedding=-drawn.identity_embedding)
    settings = GenerationSettings.of(steps=2, guidance=1.0)
    preset = replace(PRESETS["sd15"], region_places={"nose": ((0.25, 0.25, 0.75, 0.75),)})
    monkeypatch.setitem(PRESETS, "sd15", preset)
    mixed, plain = (
        explain(blind, GenerationRequest(drawn, PROMPT, settings, donors=donors))[0]
        for donors in (Donors({"nose": other}), Donors())
    )
    assert mixed.tokens == plain.tokens
    np.testing.assert_allclose(mixed.maps[:, 5:].sum(1), 1, atol=5e-3)  # everybody's shares of a pixel have this sum
    difference = np.abs(mixed.maps[0, 5:] - plain.maps[0, 5:]).max(0)  # in the first step, latents are still equal
    assert difference[2:6, 2:6].mean() > 3 * difference[[0, 0, -1, -1], [0, -1, 0, -1]].mean()


def test_localisation_is_attention_inside_less_outside() -> None:
    mask = np.zeros((32, 32), bool)
    mask[8:16, 8:16] = True
    attention = np.zeros((8, 8), np.float32)
    attention[2:4, 2:4] = 0.3
    assert _inside_less_outside(attention, mask) == pytest.approx(1, abs=1e-3)
    assert _inside_less_outside(0.3 - attention, mask) == pytest.approx(-1, abs=1e-3)
    assert _inside_less_outside(np.ones((8, 8), np.float32), mask) == pytest.approx(0, abs=1e-3)


def test_sheet(generator: PortraitGenerator, drawn: FaceAnalysis, tmp_path: Path) -> None:
    portrait = generator.generate(drawn, PROMPT, steps=1)[0]
    maps = np.random.default_rng(0).random((6, 3, 8, 8), np.float32)
    moments = tuple(f"step {k}" for k in range(1, 7))
    tokens = ("eyes", "nose", "identity 1")
    explanation = Explanation(portrait.image, moments, tokens, maps, {"eyes": 0.25}, portrait)
    save_attention_sheet(explanation, tmp_path / "heat.png")
    with Image.open(tmp_path / "heat.png") as sheet:
        assert sheet.size == (4 * 160, 18 + 5 * 178)
        assert "consistentid" in str(sheet.info)
    hot = np.zeros((8, 8), np.float32)
    hot[:4] = 1
    tile = np.asarray(heat_over(Image.new("RGB", (64, 64), "grey"), hot)).astype(int)
    assert tile[8, 32, 0] > tile[8, 32, 2]
    assert tile[56, 32, 0] < tile[56, 32, 2]


def test_identity_maps_are_those_of_the_recorded_keys(generator: PortraitGenerator) -> None:
    unet = generator.pipeline.unet
    name = next(name for name, _ in unet.named_modules() if name.endswith("attn2"))
    layer = unet.get_submodule(name)
    torch.manual_seed(0)
    hidden, tokens = torch.randn(1, 16, layer.to_q.in_features), torch.randn(1, 1, 4, layer.cross_attention_dim)
    recorder = AttentionRecorder(unet, (name,), identity=True)
    with torch.no_grad(), recorder.recording():
        query = layer.to_q(hidden)
        key = layer.processor.to_k_ip[0](tokens)[:, 0]
        found = next(iter(recorder.identity_maps()))
    heads = [x.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for x in (query, key)]
    expected = (heads[0] @ heads[1].transpose(2, 3) * layer.scale).softmax(-1)
    torch.testing.assert_close(found, expected)


def test_a_photo_is_looked_at_in_single_steps(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    found = explain_photo(generator, drawn)
    assert found.moments == ("20% noise", "40% noise", "60% noise", "80% noise")
    assert found.tokens == ("face", "ears", "eyes", "nose", "mouth", *(f"identity {k}" for k in range(1, 5)))
    assert found.maps.shape == (4, 9, 8, 8)
    assert found.picture.size == (64, 64)
    np.testing.assert_allclose(found.maps[:, 5:].sum(1), 1, atol=1e-5)
    assert set(found.localisation) == {"face", "ears", "eyes", "nose", "mouth"}
    assert np.array_equal(explain_photo(generator, drawn).maps, found.maps)
    assert not np.array_equal(explain_photo(generator, drawn, seed=1).maps, found.maps)
    assert not any(module._forward_hooks for module in generator.pipeline.unet.modules())
    attention_sheet(found)
