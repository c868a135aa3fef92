"""One denoising run of a stock pipeline for a batch of images that share its settings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from consistentid.generation.callbacks import Cancel, StepEnd, StepReport
from consistentid.generation.embeddings import pipeline_inputs
from consistentid.generation.health import check_picture
from consistentid.generation.request import Shot
from consistentid.generation.schedulers import scheduler_named
from consistentid.generation.tasks import pipeline_for, task_named
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.kept_keys import kept_keys_and_values

OutputType = Literal["pil", "latent"]


@dataclass(frozen=True)
class Rendered:
    """One image of a run: a picture or its latents, and whether the safety checker blacked it."""

    picture: Image.Image | None
    latents: Tensor | None
    withheld: bool


def denoise(
    pipeline: Any,
    batch: Sequence[Shot],
    *,
    adapter: IdentityAdapter,
    cancelled: Cancel,
    report: Callable[[StepReport], None],
    output_type: OutputType,
) -> list[Rendered]:
    """Run the pipeline of the batch's task once.

    Args:
        pipeline: the base model's pipeline, with the adapter attached.
        batch: images with one `run_key`.
        adapter: gets the batch's identity scale.
        cancelled: asked after every step.
        report: told after every step.
        output_type: pictures, or the final latents.

    Raises:
        GenerationCancelled: `cancelled` said so.
        NumbersOverflowed: a picture would be black.
    """
    request, settings = batch[0].prepared.request, batch[0].prepared.settings
    task = task_named(request.task)
    runner = pipeline_for(task, pipeline, components=request.components)
    runner.set_progress_bar_config(disable=True)
    # Models distilled for few steps read the guidance scale instead of running a guidance branch.
    reads_guidance = pipeline.unet.config.time_cond_proj_dim is not None
    guidance = settings.guidance is not None and settings.guidance > 1 and not reads_guidance
    merge_step = settings.merge_step if isinstance(settings.merge_step, int) else -1
    inputs = pipeline_inputs(
        [shot.prepared.embeddings for shot in batch],
        guidance=guidance,
        merged_from_start=merge_step < 0,
        device=runner._execution_device,  # with offloading not where the U-Net is
        dtype=pipeline.unet.dtype,
    )
    step_end = StepEnd(merged=inputs.merged, merge_step=merge_step, cancelled=cancelled, report=report)
    arguments: dict[str, Any] = {
        **request.inputs,
        **inputs.arguments,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance if guidance or reads_guidance else 1.0,
        "generator": [torch.Generator().manual_seed(shot.seed) for shot in batch],
        "callback_on_step_end": step_end,
        "callback_on_step_end_tensor_inputs": step_end.tensor_names,
        "output_type": output_type,
    }
    if task.sized and settings.size is not None:
        arguments["width"], arguments["height"] = settings.size
    given = [shot.latents for shot in batch if shot.latents is not None]
    if given:
        arguments["latents"] = torch.cat(given).to(runner._execution_device, torch.float32)
    adapter.set_scale(settings.identity_scale or 0.0)
    with (
        _scheduler(runner, settings.scheduler or ""),
        adapter.fixed_tokens(inputs.tokens),
        kept_keys_and_values(pipeline.unet),
    ):
        output = runner(**arguments)
    return _rendered(output, batch, vae=pipeline.vae, output_type=output_type)


@contextmanager
def _scheduler(runner: Any, name: str) -> Iterator[None]:
    """Another scheduler for the length of a run; always a fresh one, they keep state."""
    saved = runner.scheduler
    runner.scheduler = scheduler_named(name, like=saved)
    try:
        yield
    finally:
        runner.scheduler = saved


def _rendered(output: Any, batch: Sequence[Shot], *, vae: Any, output_type: OutputType) -> list[Rendered]:
    flags = getattr(output, "nsfw_content_detected", None) or [False] * len(output.images)
    if output_type == "latent":
        return [Rendered(None, latents.cpu(), withheld=False) for latents in output.images]
    for image, flag in zip(output.images, flags, strict=True):
        if not flag:
            check_picture(image, vae=vae)
    return [
        Rendered(image if shot.prepared.blend is None or flag else shot.prepared.blend.over(image), None, bool(flag))
        for image, flag, shot in zip(output.images, flags, batch, strict=True)
    ]
