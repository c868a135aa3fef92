"""Our nodes in a real ComfyUI against our own pipeline: same weights, noise and steps, same latents."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from consistentid.generation.donors import Donors

SIZE = 8  # of the latents
STEPS = 5  # a divisor of 1000, else `ddim_uniform` makes another number of steps
TOLERANCE = 5e-5  # of the latents' standard deviation; measured: at most 1.3e-5
EFFECT = 100 * TOLERANCE  # that a setting must have at least, to be seen
PROMPT, NEGATIVE = "portrait of a person in a garden", "blurry"


def comfy_latents(model: Any, positive: Any, negative: Any, *, steps: int, cfg: float, sampler: str = "euler") -> Any:
    """What ComfyUI's KSampler makes of the noise, in the space of the U-Net.

    `ddim_uniform` has the same timesteps as diffusers' `leading` spacing with an offset of 1.
    """
    import comfy.sample

    out = comfy.sample.sample(
        model, noise(), steps, cfg, sampler, "ddim_uniform", positive, negative, torch.zeros(1, 4, SIZE, SIZE),
        disable_pbar=True, seed=0,
    )  # fmt: skip
    return model.model.process_latent_in(out)


def noise() -> torch.Tensor:
    return torch.randn(1, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(7))


def our_latents(twins: Any, face: Any, *, steps: int, cfg: float, prompt: str = PROMPT, **options: Any) -> Any:
    """The same by diffusers, whose Euler begins with slightly more noise than ComfyUI's: that is given away."""
    scheduler = twins.generator.pipeline.scheduler
    scheduler.set_timesteps(steps)
    sigma = float(scheduler.sigmas[0])
    start = noise() * sigma / (sigma**2 + 1) ** 0.5
    return twins.generator.generate(
        face, prompt, negative_prompt=NEGATIVE, latents=start, steps=steps, guidance=cfg, scheduler="euler",
        size=(SIZE * 8, SIZE * 8), output_type="latent", **options,
    )[0].latents  # fmt: skip


def applied(nodes: Any, twins: Any, face: Any, **options: Any) -> Any:
    given = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "identity_scale": 1.0, "merge": -1.0, **options}
    given = {"model": twins.model, "clip": twins.clip, "consistentid": twins.loaded, "face": face, **given}
    return nodes.ApplyConsistentID().apply(**given)


def compare(nodes: Any, pair: Any, face: Any, *, cfg: float = 3.0, ours: Any = None, theirs: Any = None) -> float:
    """The largest difference, in units of the latents' spread."""
    expected = our_latents(pair, face, steps=STEPS, cfg=cfg, **(ours or {}))
    with torch.inference_mode():  # as ComfyUI runs its nodes
        found = comfy_latents(*applied(nodes, pair, face, **(theirs or {})), steps=STEPS, cfg=cfg)
    return float((found.reshape(expected.shape) - expected).abs().max() / expected.std())


@pytest.mark.parametrize("base", ["sd15", "sdxl", "official_sd15", "official_sdxl"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_latents_are_those_of_our_pipeline(nodes, twins, drawn, base, cfg):
    assert compare(nodes, twins(base), drawn(0), cfg=cfg) < TOLERANCE


def effect(pair: Any, face: Any, **settings: Any) -> float:
    """What settings change, in the same unit."""
    plain, changed = (our_latents(pair, face, steps=STEPS, cfg=3.0, **given) for given in ({}, settings))
    return float((changed - plain).abs().max() / plain.std())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"identity_scale": 0.6}, {"identity_scale": 0.6}),
        ({"identity_scale": 0.0}, {"identity_scale": 0.0}),
        ({"merge_step": 0.0}, {"merge": 0.0}),
        ({"merge_step": 0.2}, {"merge": 0.2}),
        ({"merge_step": 1.0}, {"merge": 1.0}),
        ({"caption": "a round face, blue eyes"}, {"caption": "a round face, blue eyes"}),
    ],
    ids=lambda given: "-".join(given),
)
def test_settings_mean_the_same(nodes, twins, drawn, ours, theirs):
    pair, face = twins("sd15"), drawn(0)
    assert compare(nodes, pair, face, ours=ours, theirs=theirs) < TOLERANCE
    assert effect(pair, face, **ours) > EFFECT


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_regions_are_weighed_reworded_and_scheduled_alike(nodes, twins, drawn, base):
    control = None
    for part, weight, start, end, words in (
        ("eyes", 0.5, -1.0, 1.0, ""),
        ("mouth", 1.0, 0.2, 0.8, "laughing"),
        ("identity", 1.3, 0.4, 1.0, ""),
    ):
        (control,) = nodes.RegionWeight().weigh(part, weight, start, end, words, control=control)
    ours = {
        "weights": {"eyes": 0.5, "identity": 1.3},
        "starts": {"mouth": 0.2, "identity": 0.4},
        "ends": {"mouth": 0.8},
        "words": {"mouth": "laughing"},
    }
    pair, face = twins(base), drawn(0)
    assert compare(nodes, pair, face, ours=ours, theirs={"control": control}) < TOLERANCE
    assert effect(pair, face, **ours) > EFFECT


@pytest.mark.parametrize("combine", ["average", "concatenate", "best"])
def test_mixed_faces_are_the_same(nodes, twins, drawn, combine):
    pair, (one, two, three) = twins("sd15"), map(drawn, range(3))
    donors, given = Donors({"eyes": three}, same=(two,)), {"second_photo": two, "eyes_of": three}
    settings = {"combine": combine}
    if combine != "concatenate":
        donors, settings["blend"] = Donors({"eyes": three}, three, (two,)), 0.3
        given["second_person"] = three
    (face,) = nodes.MixFaces().mix(one, 0.3, combine, **given)
    expected = our_latents(pair, one, steps=STEPS, cfg=3.0, donors=donors, **settings)
    with torch.inference_mode():
        found = comfy_latents(*applied(nodes, pair, face), steps=STEPS, cfg=3.0)
    assert float((found.reshape(expected.shape) - expected).abs().max() / expected.std()) < TOLERANCE


def test_a_controlnet_acts_alike(nodes, twins, drawn):
    import comfy_twins
    import node_helpers

    pair, face = twins("sd15"), drawn(0)
    network, theirs = comfy_twins.controlnet(pair.generator.pipeline, pair.model)
    picture = Image.fromarray(face.photo).resize((SIZE * 8, SIZE * 8))
    control = {"task": "controlnet", "inputs": {"image": picture}, "components": {"controlnet": network}}
    expected = our_latents(pair, face, steps=STEPS, cfg=3.0, merge_step=0.2, **control)
    with torch.inference_mode():
        model, *both = applied(nodes, pair, face, merge=0.2)
        hint = torch.from_numpy(np.asarray(picture, np.float32) / 255).movedim(-1, 0)[None]
        theirs.set_cond_hint(hint, 1.0, (0.0, 1.0))
        controlled = [
            node_helpers.conditioning_set_values(one, {"control": theirs, "control_apply_to_uncond": False})
            for one in both
        ]
        found = comfy_latents(model, *controlled, steps=STEPS, cfg=3.0)
    assert float((found.reshape(expected.shape) - expected).abs().max() / expected.std()) < TOLERANCE
    assert effect(pair, face, merge_step=0.2, **control) > EFFECT
