"""Our nodes in a real ComfyUI against our own pipeline: same weights, noise and steps, same latents."""

from typing import Any

import pytest
import torch

SIZE = 8  # of the latents
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


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_latents_are_those_of_our_pipeline(nodes, twins, drawn, base):
    pair, face = twins(base), drawn(0)
    ours = our_latents(pair, face, steps=5, cfg=3.0)
    with torch.inference_mode():
        theirs = comfy_latents(*applied(nodes, pair, face), steps=5, cfg=3.0)
    torch.testing.assert_close(theirs.reshape(ours.shape), ours, rtol=2e-4, atol=2e-4)
