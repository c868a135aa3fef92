from dataclasses import replace

import numpy as np
import pytest
import torch

from consistentid.errors import InvalidSettings, WeightsNotFound
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.conditioning import Conditioning
from consistentid.identity.image_encoder import ClipImageEncoder

EMBEDS = ("prompt_embeds", "text_only_embeds", "negative_embeds", "identity", "image_features")


@pytest.fixture
def conditioner(pipeline, adapter, image_encoder):
    return Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder)


def assert_close(first, second, names=EMBEDS):
    for name in names:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-5)


def test_batch_is_its_parts(conditioner, analyses):
    prompts = ["a man in a forest", "a woman, red background"]
    both = conditioner.condition(analyses, prompts, negative_prompt=["", "blurred"], images_per_prompt=2)
    parts = [
        conditioner.condition(face, prompt, negative_prompt=negative).repeat(2)
        for face, prompt, negative in zip(analyses, prompts, ["", "blurred"], strict=True)
    ]
    assert len(both) == 4
    assert both.regions == Conditioning.cat(parts).regions
    assert_close(both, Conditioning.cat(parts))


def test_one_face_many_prompts_and_one_prompt_many_faces(conditioner, analyses):
    prompts = ["a man", "a woman"]
    assert_close(conditioner.condition(analyses[0], prompts), conditioner.condition([analyses[0]] * 2, prompts))
    assert_close(conditioner.condition(analyses, "a man"), conditioner.condition(analyses, ["a man"] * 2))
    with pytest.raises(InvalidSettings, match="2 and 3 entries"):
        conditioner.condition(analyses, ["a", "b", "c"])


def test_only_region_tokens_differ_between_the_phases(conditioner, analyses):
    given = conditioner.condition(analyses, "a person")
    for row in range(2):
        changed = (given.prompt_embeds[row] != given.text_only_embeds[row]).any(-1).nonzero().flatten().tolist()
        prompt = given.facial_prompts[row]
        where = dict(zip(prompt.regions, prompt.positions, strict=True))
        assert changed == sorted(where[name] for name in given.regions[row])
    assert given.regions[0] == ("face", "ears", "eyes", "nose", "mouth")
    assert given.regions[1] == ("face", "eyes", "nose", "mouth")  # the ears are hidden
    assert given.facial_prompts[0].text == given.facial_prompts[1].text


def test_regions_and_identity_can_be_left_out(conditioner, analyses):
    full = conditioner.condition(analyses, "a person")
    none = conditioner.condition(analyses, "a person", regions=())
    assert torch.equal(none.prompt_embeds, none.text_only_embeds)
    assert torch.equal(none.text_only_embeds, full.text_only_embeds)
    nose = conditioner.condition(analyses[0], "a person", regions=("nose",))
    assert nose.regions == (("nose",),)
    nobody = conditioner.condition(analyses, "a person", identity=False)
    assert torch.equal(nobody.identity, nobody.negative_identity)
    assert torch.equal(nobody.image_features, nobody.negative_image_features)
    assert_close(nobody, full, ("prompt_embeds", "text_only_embeds"))
    with pytest.raises(InvalidSettings, match="unknown region 'chin'"):
        conditioner.condition(analyses, "a person", regions=("chin",))


def test_strength_is_a_share_of_the_way_from_word_to_fused_token(conditioner, analyses):
    adapter, weights = conditioner.adapter, [{"mouth": 0.5}]
    whole = conditioner.condition(analyses[0], "a person")
    strengths = {"face": 0.25, "eyes": 1.5, "mouth": 0.5}
    adapter.config = adapter.config.model_copy(update={"region_strength": strengths})
    part = conditioner.condition(analyses[0], "a person")
    weighted = whole.with_weights([strengths])
    torch.testing.assert_close(part.prompt_embeds, weighted.prompt_embeds)
    torch.testing.assert_close(
        part.with_weights(weights).prompt_embeds, whole.with_weights([strengths | {"mouth": 0.25}]).prompt_embeds
    )
    assert torch.equal(part.text_only_embeds, whole.text_only_embeds)


def test_another_recogniser_is_refused(conditioner, analyses):
    foreign = replace(analyses[1], identity_embedding=np.ones(512, np.float32))
    with pytest.raises(InvalidSettings, match=r"has 512 numbers, the adapter expects 16; analyse the photo with"):
        conditioner.condition([analyses[0], foreign], "a person")


SETTINGS = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent", "height": 64, "width": 64}


def portraits(pipeline, adapter, given, latents, *, scale=1.0):
    adapter.set_scale(scale)
    tokens = adapter.identity_tokens(given.identity, given.image_features)
    nobody = adapter.identity_tokens(given.negative_identity, given.negative_image_features)
    with torch.no_grad(), adapter.fixed_tokens(torch.cat([nobody, tokens])):
        return pipeline(
            prompt_embeds=given.prompt_embeds,
            negative_prompt_embeds=given.negative_embeds,
            ip_adapter_image_embeds=[given.image_embeds(guidance=True)],
            latents=latents,
            **SETTINGS,
        ).images


def noise(count):
    return torch.randn((count, 4, 8, 8), generator=torch.Generator().manual_seed(0))


def test_scale_zero_and_no_regions_is_the_base_model(pipeline, adapter, conditioner, analyses):
    given = conditioner.condition(analyses, "a person", negative_prompt="blurred", regions=())
    texts = [prompt.text_only for prompt in given.facial_prompts]
    plain = pipeline(texts, negative_prompt=["blurred"] * 2, latents=noise(2), **SETTINGS).images
    with adapter.attached(pipeline):
        assert torch.equal(portraits(pipeline, adapter, given, noise(2), scale=0.0), plain)
    assert torch.equal(pipeline(texts, negative_prompt=["blurred"] * 2, latents=noise(2), **SETTINGS).images, plain)


def test_every_image_of_a_batch_has_its_own_person(pipeline, adapter, conditioner, analyses):
    given = [conditioner.condition(face, "a person") for face in analyses]
    with adapter.attached(pipeline):
        together = portraits(pipeline, adapter, Conditioning.cat(given), noise(2))
        apart = [portraits(pipeline, adapter, one, noise(2)[row : row + 1]) for row, one in enumerate(given)]
        adapter.set_image_features(given[0].clip_embeds(guidance=True))
        stock = pipeline(
            prompt_embeds=given[0].prompt_embeds,
            negative_prompt_embeds=given[0].negative_embeds,
            ip_adapter_image_embeds=[given[0].image_embeds(guidance=True)],
            latents=noise(2)[:1],
            **SETTINGS,
        ).images
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(apart[0], stock, rtol=1e-4, atol=1e-5)
    assert not torch.equal(*apart)


def test_images_are_encoded_once(conditioner, analyses, monkeypatch):
    calls = []
    encode = conditioner.image_encoder.encode
    monkeypatch.setattr(conditioner.image_encoder, "encode", lambda pixels: calls.append(len(pixels)) or encode(pixels))
    for _ in range(2):
        conditioner.condition([*analyses, analyses[0]], "a person")
    assert calls == [6 + 5, 1]  # all images of two faces in one batch, and the zero image


def test_encoder_of_another_size_is_refused(pipeline, adapter, image_encoder):
    image_encoder.hidden_size = 8
    with pytest.raises(InvalidSettings, match="17 x 8 features"):
        Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder)


def test_reference_images_of_both_modes(analyses):
    from consistentid.identity.config import OFFICIAL_SD15, Quirks
    from consistentid.identity.reference import reference_images

    aligned = reference_images(analyses[1], Quirks())
    assert {image.size for image in (aligned.whole, *aligned.regions.values())} == {(150, 150)}
    assert "ears" not in aligned.regions
    official = reference_images(analyses[0], OFFICIAL_SD15)
    assert np.array_equal(np.asarray(official.whole), analyses[0].photo)
    assert list(official.regions) == ["face", "eyes", "ears", "nose", "mouth"]
    nose = np.asarray(official.regions["nose"])
    assert (nose[analyses[0].label_map == 17] == 0).all()


def test_a_truncated_image_encoder_is_one_sentence(image_encoder, tmp_path):
    image_encoder.model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(WeightsNotFound, match="no CLIP image encoder in"):
        ClipImageEncoder.from_pretrained(tmp_path, offline=True)
