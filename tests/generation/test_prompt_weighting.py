"""Weighted and long prompts through the generator."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import tiny_adapter, tiny_pipeline, tiny_sdxl

from consistentid.errors import InvalidPrompt, PromptRefused
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import read_settings
from consistentid.generation.reproduce import reproduce
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.stored import from_tensors, to_tensors
from consistentid.identity.conditioning import Conditioning

PLAIN, WEIGHTED = "a smiling portrait of a person", "a (smiling)1.4 portrait of a (person)0.7"
LONG = f"{WEIGHTED}, " + ", ".join(["a garden"] * 12)  # the tiny tokenizer reads letters
SHORT: dict[str, Any] = {"steps": 2, "merge_step": 0, "output_type": "latent"}


def latents(generator: PortraitGenerator, face: FaceAnalysis, prompt: str, **settings: Any) -> torch.Tensor:
    made = generator.generate(face, prompt, **{**SHORT, **settings})[0].latents
    assert made is not None
    return made


def conditioning(generator: PortraitGenerator, face: FaceAnalysis, prompt: str, **settings: Any) -> Conditioning:
    request = GenerationRequest(face, prompt, GenerationSettings(**settings))
    return generator.prepare(request).embeddings.conditioning


def test_weights_have_effect_only_when_they_are_on(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    caption = {"caption": "one face"}
    plain = latents(generator, drawn, PLAIN, **caption)
    same = latents(generator, drawn, PLAIN, prompt_weighting=True, **caption)
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-5)
    weighted = latents(generator, drawn, WEIGHTED, prompt_weighting=True, **caption)
    assert not torch.allclose(weighted, plain, atol=1e-3)
    assert not torch.equal(weighted, latents(generator, drawn, WEIGHTED, **caption)), "off, weights are text"


@pytest.mark.parametrize("task", ["text-to-image", "img2img", "inpaint", "controlnet"])
def test_long_prompts_in_every_task(generator: PortraitGenerator, drawn: FaceAnalysis, task: str) -> None:
    picture = Image.new("RGB", (64, 64), (190, 220, 250))
    inputs: dict[str, Any] = {
        "img2img": {"image": picture, "strength": 0.9},
        "inpaint": {"image": picture, "mask_image": picture.convert("L")},
        "controlnet": {"image": picture},
    }
    options: dict[str, Any] = {"task": task, "inputs": inputs.get(task), "prompt_weighting": True}
    if task == "controlnet":
        config = {key: value for key, value in generator.pipeline.unet.config.items() if "encoder_hid" not in key}
        unet = diffusers.UNet2DConditionModel.from_config(config)
        options["components"] = {"controlnet": diffusers.ControlNetModel.from_unet(unet)}
    first, other = (latents(generator, drawn, f"{LONG}, {end}", **options) for end in ("blue sky", "red sky"))
    assert torch.isfinite(first).all()
    assert not torch.equal(first, other)


def test_prompts_of_different_length_do_not_share_a_run(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    settings = GenerationSettings(prompt_weighting=True, steps=2, merge_step=0)
    prompts = (PLAIN, LONG)
    lengths = [
        conditioning(generator, drawn, prompt, prompt_weighting=True).prompt_embeds.shape[1] for prompt in prompts
    ]
    assert lengths[0] < lengths[1]
    requests = [GenerationRequest(drawn, prompt, settings) for prompt in prompts]
    made = generator.generate_batch(requests, output_type="latent", batch_size=2)
    for prompt, (portrait,) in zip(prompts, made, strict=True):
        assert torch.equal(portrait.latents, latents(generator, drawn, prompt, prompt_weighting=True))


def test_a_portrait_is_made_again_from_its_record(
    generator: PortraitGenerator, sample_photos: dict[str, Path], tmp_path: Path
) -> None:
    portrait = generator.generate(sample_photos["official-man"], LONG, steps=2, prompt_weighting=True)[0]
    record = read_settings(portrait.save(tmp_path / "portrait.png"))
    assert record.prompt_weighting
    assert record.prompt == LONG
    assert record.facial_prompt.startswith("a smiling portrait of a person , a garden")
    assert set(record.versions) > {"compel", "torch"}
    assert reproduce(generator, record).image.tobytes() == portrait.image.tobytes()


def test_kept_conditionings_know_whether_weights_are_on(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    weighted, plain, again = (
        conditioning(generator, drawn, LONG, prompt_weighting=flag) for flag in (True, False, True)
    )
    assert again is weighted
    assert plain.prompt_embeds.shape != weighted.prompt_embeds.shape
    settings = GenerationSettings(prompt_weighting=True)
    embeddings = generator.prepare(GenerationRequest(drawn, LONG, settings)).embeddings
    read = from_tensors(to_tensors(embeddings)).conditioning
    assert torch.equal(read.prompt_embeds, weighted.prompt_embeds)
    assert torch.equal(read.facial_prompt.ids, weighted.facial_prompt.ids)
    assert read.facial_prompt.positions == weighted.facial_prompt.positions


def test_the_policy_reads_the_prompt_as_the_text_encoder_does(
    generator: PortraitGenerator, drawn: FaceAnalysis
) -> None:
    for prompt in ("a person without (any)0.1 clothes", "a person, middle (age)1.3, in lingerie"):
        latents(generator, drawn, prompt, prompt_weighting=True)
    with pytest.raises(PromptRefused, match="without clothes"):
        latents(generator, drawn, "a person (without)1.3 clothes", prompt_weighting=True)
    with pytest.raises(InvalidPrompt, match=r"\.blend\(…\)"):
        latents(generator, drawn, '("a person", "a cat").blend(1, 1)', prompt_weighting=True)


def test_a_word_of_two_vectors_has_a_weight(tiny_model: Path, drawn: FaceAnalysis, tmp_path: Path) -> None:
    path = tmp_path / "<watercolour>.safetensors"
    save_file({"emb_params": torch.randn(2, 64)}, path)
    generator = PortraitGenerator.from_pretrained(tiny_model, dtype="float32", textual_inversions=[str(path)])
    portrait = generator.generate(drawn, "a (<watercolour>)1.3 face", steps=1, prompt_weighting=True)[0]
    assert portrait.settings.facial_prompt.startswith("a <watercolour> <watercolour>_1 face")


@pytest.mark.parametrize("sdxl", [False, True])
def test_with_clip_skip_and_two_encoders(drawn: FaceAnalysis, tmp_path: Path, sdxl: bool) -> None:
    pipeline: Any = tiny_pipeline(tmp_path / "tiny")
    pipeline, adapter = tiny_sdxl(pipeline) if sdxl else (pipeline, tiny_adapter(pipeline))
    generator = PortraitGenerator(pipeline, adapter, analyzer=None)
    made = {}
    for skip in (0, 1):
        plain, same, made[skip] = (
            conditioning(generator, drawn, prompt, clip_skip=skip, caption="one face", prompt_weighting=flag)
            for prompt, flag in ((PLAIN, False), (PLAIN, True), (LONG, True))
        )
        torch.testing.assert_close(same.prompt_embeds, plain.prompt_embeds, rtol=0, atol=1e-5)
        if sdxl:
            torch.testing.assert_close(same.pooled, plain.pooled, rtol=0, atol=1e-5)
    assert not torch.equal(made[0].text_only_embeds, made[1].text_only_embeds)
    assert torch.isfinite(latents(generator, drawn, LONG, size=(64, 64), prompt_weighting=True)).all()
