import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from consistentid.errors import (
    GenerationCancelled,
    InvalidSettings,
    PromptRefused,
    UnreadableImage,
    WeightsNotFound,
)
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.callbacks import StepReport
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.trust.policy import PromptPolicy

PROMPT = "a portrait of a person"


def latents(generator: PortraitGenerator, face: FaceAnalysis, prompt: str = PROMPT, **settings: object) -> torch.Tensor:
    made = generator.generate(face, prompt, output_type="latent", **{"steps": 4, **settings})
    return torch.stack([portrait.latents for portrait in made])


def test_scale_0_without_regions_is_the_base_model(fresh_generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    off = {"caption": "", "identity_scale": 0, "regions": (), "scheduler": "ddim"}
    ours = latents(fresh_generator, drawn, **off, guidance=3.0, negative_prompt="x")
    fresh_generator.adapter.detach()
    base = fresh_generator.pipeline(
        PROMPT,
        negative_prompt="x",
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(0)],
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, base, rtol=0, atol=0)


def test_identity_regions_prompt_and_merge_step_have_effect(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    usual = latents(generator, drawn)
    for changed in (
        {"identity_scale": 0},
        {"identity_scale": 0.5},
        {"regions": ()},
        {"regions": ("eyes",)},
        {"merge_step": 0},
        {"guidance": 4.0},
        {"seed": 1},
        {"negative_prompt": "a hat"},
        {"scheduler": "euler"},
    ):
        assert not torch.equal(usual, latents(generator, drawn, **changed)), changed
    assert not torch.equal(usual, latents(generator, drawn, prompt="a face"))
    assert torch.equal(usual, latents(generator, drawn)), "the same request gives the same latents"


@pytest.mark.parametrize("settings", [{}, {"guidance": 1.0}, {"scheduler": "euler_a"}, {"merge_step": -1}])
def test_batch_of_2_is_2_batches_of_1(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, settings: dict[str, object]
) -> None:
    asked = GenerationSettings.of(steps=4, **settings)
    requests = [
        GenerationRequest(drawn, PROMPT, asked),
        GenerationRequest(other, "a face", asked.model_copy(update={"seed": 5})),
    ]
    together = generator.generate_batch(requests, output_type="latent", batch_size=2)
    apart = generator.generate_batch(requests, output_type="latent", batch_size=1)
    assert [portraits[0].settings.batch_size for portraits in together] == [2, 2]
    for one, two in zip(together, apart, strict=True):
        torch.testing.assert_close(one[0].latents, two[0].latents, rtol=1e-4, atol=1e-4)


def test_image_k_has_seed_plus_k(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    many = latents(generator, drawn, seed=3, num_images=3)
    assert many.shape == (3, 4, 8, 8)
    torch.testing.assert_close(many[2:], latents(generator, drawn, seed=5), rtol=1e-4, atol=1e-4)


def test_without_guidance_the_negative_prompt_does_nothing(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    plain = latents(generator, drawn, guidance=1.0)
    assert torch.equal(plain, latents(generator, drawn, guidance=1.0, negative_prompt="a hat"))
    assert torch.equal(plain, latents(generator, drawn, guidance=0.0))


def test_given_latents_are_the_start(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    given = latents(generator, drawn, latents=noise, scheduler="ddim")  # which draws no noise besides
    torch.testing.assert_close(given, latents(generator, drawn, seed=0, scheduler="ddim"))
    with pytest.raises(InvalidSettings, match="1 latents were given for 2 images"):
        latents(generator, drawn, latents=noise, num_images=2)


@pytest.mark.parametrize("scheduler", ["ddim", "heun", "euler"])
@pytest.mark.parametrize("merge_step", [-1, 0, 2, 7])
def test_merge_lands_on_the_exact_step(
    generator: PortraitGenerator, drawn: FaceAnalysis, scheduler: str, merge_step: int
) -> None:
    seen: list[torch.Tensor] = []
    handle = generator.pipeline.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"].clone()), with_kwargs=True
    )
    try:
        latents(generator, drawn, scheduler=scheduler, merge_step=merge_step, steps=4, negative_prompt="a hat")
    finally:
        handle.remove()
    order = 2 if scheduler == "heun" else 1
    conditioning = generator.prepare(
        GenerationRequest(drawn, PROMPT, GenerationSettings(negative_prompt="a hat"))
    ).embeddings.conditioning
    merged = conditioning.merged_embeds(guidance=True)
    bare = torch.cat([conditioning.negative_text_only_embeds, conditioning.text_only_embeds])
    assert not torch.equal(merged, bare)
    assert len(seen) == (7 if order == 2 else 4)
    for index, given in enumerate(seen):
        expected = bare if index // order <= merge_step else merged
        assert torch.equal(given, expected), f"evaluation {index}"


def test_cancel_and_reports(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    stop = threading.Event()
    reports: list[StepReport] = []

    def watch(report: StepReport) -> None:
        reports.append(report)
        if report.step == 2:
            stop.set()

    with pytest.raises(GenerationCancelled, match="cancelled"):
        generator.generate(drawn, PROMPT, steps=6, cancel=stop, callback=watch)
    assert [report.step for report in reports] == [1, 2]
    assert {report.steps for report in reports} == {6}
    with pytest.raises(GenerationCancelled):
        generator.generate(drawn, PROMPT, steps=2, cancel=lambda: True)
    assert len(generator.generate(drawn, PROMPT, steps=2)) == 1, "a cancelled run leaves no trace"


def test_sizes(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    assert generator.generate(drawn, PROMPT, steps=1, size=(48, 80))[0].image.size == (48, 80)
    assert generator.generate(drawn, PROMPT, steps=1)[0].image.size == (64, 64)
    with pytest.raises(InvalidSettings, match="multiple of 8"):
        generator.generate(drawn, PROMPT, size=(50, 64))


def test_a_merge_step_from_a_command_line_is_a_share_when_it_has_a_point() -> None:
    found = [GenerationSettings.of(merge_step=text).merge_step for text in ("1.0", "0.0", "0.5", "1", "-1")]
    assert [(type(step), step) for step in found] == [(float, 1.0), (float, 0.0), (float, 0.5), (int, 1), (int, -1)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"guidance": -1.0}, "guidance"),
        ({"merge_step": 1.5}, "share of the steps"),
        ({"merge_step": -2}, "merge_step"),
        ({"num_images": 0}, "num_images"),
        ({"sede": 1}, "sede: is no known setting"),
        ({"scheduler": "nonsense"}, "there is no scheduler 'nonsense'"),
        ({"scheduler": "StableDiffusionPipeline"}, "there is no scheduler"),
        ({"regions": ("hair",)}, "unknown region 'hair'; choose from"),
        ({"task": "sculpture"}, "there is no task"),
        ({"task": "img2img"}, "needs the argument image"),
        ({"inputs": {"image": 1}}, "takes no argument image"),
    ],
)
def test_bad_settings_are_one_sentence(
    generator: PortraitGenerator, drawn: FaceAnalysis, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidSettings, match=message):
        generator.generate(drawn, PROMPT, **{"steps": 2, **settings})


def test_bad_photos(generator: PortraitGenerator, tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    for photo in (text, tmp_path / "missing.jpg", b""):
        with pytest.raises(UnreadableImage):
            generator.generate(photo, PROMPT)


def test_policy_is_on_by_default_and_replaceable(
    generator: PortraitGenerator, fresh_generator: PortraitGenerator, drawn: FaceAnalysis
) -> None:
    with pytest.raises(PromptRefused):
        generator.generate(drawn, "a nude person")
    with pytest.raises(PromptRefused):
        generator.generate(drawn, PROMPT, caption="a naked face")
    fresh_generator.policy = PromptPolicy(blocked=("person",))
    with pytest.raises(PromptRefused, match="blocks"):
        fresh_generator.generate(drawn, PROMPT)


def test_missing_weights(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(WeightsNotFound, match="adapter"):
        PortraitGenerator.from_pretrained(tmp_path)
    with pytest.raises(WeightsNotFound, match="no Stable Diffusion pipeline"):
        PortraitGenerator.from_pretrained(tmp_path, adapter=tiny_model / "adapter")


def test_bfloat16_is_near_float32(tiny_model: Path, generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    reduced = PortraitGenerator.from_pretrained(tiny_model, dtype="bfloat16")
    ours, theirs = (np.asarray(g.generate(drawn, PROMPT, steps=4)[0].image, float) for g in (reduced, generator))
    assert np.abs(ours - theirs).mean() < 12
    assert latents(reduced, drawn).dtype == torch.float32
