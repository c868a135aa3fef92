"""The same generator on other stock pipelines, and on SDXL."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import tiny_controlnet, tiny_sdxl
from transformers import CLIPImageProcessorPil

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.request import GenerationRequest
from consistentid.generation.schedulers import SCHEDULERS, scheduler_named
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.tasks import TASKS

PROMPT = "a portrait of a person"
PICTURE = Image.new("RGB", (64, 64), (90, 120, 150))
INPUTS: dict[str, dict[str, Any]] = {
    "text-to-image": {},
    "img2img": {"image": PICTURE, "strength": 0.75},
    "inpaint": {"image": PICTURE, "mask_image": PICTURE.convert("L")},
    "controlnet": {"image": PICTURE},
    "controlnet-inpaint": {"image": PICTURE, "mask_image": PICTURE.convert("L"), "control_image": PICTURE},
}


def contexts(generator: PortraitGenerator, face: FaceAnalysis, **request: Any) -> list[torch.Tensor]:
    """What the U-Net was given as text in every step."""
    seen: list[torch.Tensor] = []
    handle = generator.pipeline.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"].clone()), with_kwargs=True
    )
    try:
        generator.generate(face, PROMPT, output_type="latent", **request)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("task", TASKS)
def test_merge_lands_on_the_exact_step_in_every_task(
    generator: PortraitGenerator, drawn: FaceAnalysis, task: str
) -> None:
    components = {}
    if "controlnet" in TASKS[task].components:
        components["controlnet"] = tiny_controlnet(generator.pipeline.unet)
    seen = contexts(
        generator, drawn, task=task, inputs=INPUTS[task], components=components, steps=4, merge_step=1, num_images=2
    )
    same = [torch.equal(one, seen[0]) for one in seen]
    assert same == [True, True, *[False] * (len(seen) - 2)]
    assert len(seen) >= 3
    assert all(torch.equal(one, seen[2]) for one in seen[2:])


@pytest.mark.parametrize(("task", "inputs", "steps_run"), [
    ("text-to-image", {}, 10),
    ("img2img", {}, 8),  # the pipeline's own strength, 0.8
    ("img2img", {"strength": 0.6}, 6),
    ("inpaint", {"strength": 0.25}, 2),
    ("controlnet-inpaint", {"strength": 0.6}, 6),
])  # fmt: skip
def test_merge_is_by_default_a_share_of_the_steps_that_run(
    generator: PortraitGenerator, drawn: FaceAnalysis, task: str, inputs: dict[str, Any], steps_run: int
) -> None:
    controlnet = {"controlnet": tiny_controlnet(generator.pipeline.unet)} if TASKS[task].components else {}
    given = {key: value for key, value in INPUTS[task].items() if key != "strength"} | inputs
    seen = contexts(generator, drawn, task=task, inputs=given, components=controlnet, steps=10)
    assert len(seen) == steps_run
    merged = [not torch.equal(one, seen[0]) for one in seen]
    last_without = steps_run // 2  # merge_fraction of the tiny adapter is 0.5
    assert merged == [index > last_without for index in range(steps_run)]


def test_a_given_merge_step_is_a_step_and_a_given_share_a_share(generator: PortraitGenerator) -> None:
    def merge_step(given: float) -> object:
        settings = GenerationSettings(steps=50, merge_step=given)
        inputs = {"image": PICTURE, "strength": 0.6}
        request = GenerationRequest(PICTURE, PROMPT, settings, task="img2img", inputs=inputs)
        return generator.expected(request, photo=PICTURE)["merge_step"]

    assert (merge_step(30), merge_step(0.6), merge_step(-1), merge_step(0.0)) == (30, 18, -1, -1)


def test_shared_networks_keep_their_type(tiny_model: Path, drawn: FaceAnalysis) -> None:
    generator = PortraitGenerator.from_pretrained(tiny_model, dtype="bfloat16")
    pipeline = generator.pipeline
    networks = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    before = [{key: value.dtype for key, value in network.state_dict().items()} for network in networks]
    for task in [*TASKS, "text-to-image"]:
        components = {"controlnet": tiny_controlnet(pipeline.unet)} if TASKS[task].components else {}
        generator.generate(drawn, PROMPT, task=task, inputs=INPUTS[task], components=components, steps=2)
        after = [{key: value.dtype for key, value in network.state_dict().items()} for network in networks]
        assert after == before, task
    assert pipeline.unet.conv_in.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_runs(generator: PortraitGenerator, drawn: FaceAnalysis, name: str) -> None:
    before = generator.pipeline.scheduler
    portrait = generator.generate(drawn, PROMPT, steps=3, scheduler=name, output_type="latent")[0]
    assert portrait.latents is not None
    assert torch.isfinite(portrait.latents).all()
    assert generator.pipeline.scheduler is before


def test_scheduler_classes_of_diffusers(generator: PortraitGenerator) -> None:
    like = generator.pipeline.scheduler
    assert type(scheduler_named("KDPM2DiscreteScheduler", like=like)).__name__ == "KDPM2DiscreteScheduler"
    with pytest.raises(InvalidSettings, match="does not fit"):
        scheduler_named("FlowMatchEulerDiscreteScheduler", like=like)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_class_of_a_short_name_is_accepted_as_the_name_is(generator: PortraitGenerator, name: str) -> None:
    class_name, _ = SCHEDULERS[name]
    assert type(scheduler_named(class_name, like=generator.pipeline.scheduler)).__name__ == class_name


def test_withheld_pictures_are_reported(fresh_generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    class BlacksTheFirst(torch.nn.Module):
        device = torch.device("cpu")
        dtype = torch.float32

        def forward(self, images: torch.Tensor, clip_input: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
            images[0] = 0
            return images, [True] + [False] * (len(images) - 1)

    pipeline = fresh_generator.pipeline
    pipeline.safety_checker = BlacksTheFirst()
    pipeline.feature_extractor = CLIPImageProcessorPil(size=32, crop_size=32)
    portraits = fresh_generator.generate(drawn, PROMPT, steps=1, num_images=2)
    assert [portrait.withheld for portrait in portraits] == [True, False]
    assert portraits[0].image.getextrema() == ((0, 0),) * 3


@pytest.fixture(scope="module")
def sdxl(generator: PortraitGenerator) -> PortraitGenerator:
    return PortraitGenerator(*tiny_sdxl(generator.pipeline), analyzer=None)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sdxl_switches_text_and_pooled_together(sdxl: PortraitGenerator, drawn: FaceAnalysis, guidance: float) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = sdxl.pipeline.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(
            (kwargs["encoder_hidden_states"].clone(), kwargs["added_cond_kwargs"]["text_embeds"].clone())
        ),
        with_kwargs=True,
    )
    try:
        options = {"steps": 4, "size": (64, 64), "num_images": 2, "scheduler": "ddim", "guidance": guidance}
        sdxl.generate(drawn, PROMPT, merge_step=1, output_type="latent", batch_size=2, **options)
    finally:
        handle.remove()
    assert len(seen) == 4
    for text, pooled in seen[:2]:
        assert torch.equal(text, seen[0][0])
        assert torch.equal(pooled, seen[0][1])
    for text, _ in seen[2:]:
        assert not torch.equal(text, seen[0][0])
        assert torch.equal(text, seen[2][0])
    assert seen[0][0].shape[0] == (4 if guidance > 1 else 2)


def test_sdxl_without_identity_is_the_base_model(sdxl: PortraitGenerator, drawn: FaceAnalysis) -> None:
    ours = sdxl.generate(
        drawn, PROMPT, caption="", regions=(), identity_scale=0, steps=2, size=(64, 64), scheduler="ddim",
        output_type="latent", guidance=3.0, negative_prompt="x",
    )[0].latents  # fmt: skip
    sdxl.adapter.detach()
    base = sdxl.pipeline(
        PROMPT, negative_prompt="x", num_inference_steps=2, guidance_scale=3.0, width=64, height=64,
        generator=[torch.Generator().manual_seed(0)], output_type="latent",
    ).images[0]  # fmt: skip
    torch.testing.assert_close(ours, base, rtol=0, atol=0)
