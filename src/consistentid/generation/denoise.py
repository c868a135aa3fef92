"""One denoising run of a stock pipeline for a batch of images that share its settings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from consistentid.generation.callbacks import Cancel, StepEnd, StepReport
from consistentid.generation.composition import in_windows
from consistentid.generation.controlnets import networks_of
from consistentid.generation.embeddings import PipelineInputs, pipeline_inputs
from consistentid.generation.overflow import check_picture
from consistentid.generation.precision import in_own_precision
from consistentid.generation.preview import predictions
from consistentid.generation.request import Shot
from consistentid.generation.schedulers import scheduler_named
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.tasks import pipeline_for, task_named
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.control import Strengths, phases
from consistentid.identity.kept_keys import kept_keys_and_values

_PLAIN_CHANNELS = 4  # of a U-Net for latents alone, in stock pipelines for inpainting
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
    runner = pipeline_for(task_named(request.task), pipeline, components=request.components)
    runner.set_progress_bar_config(disable=True)
    guidance = _guidance_scale(pipeline, settings)
    inputs = _inputs(pipeline, batch, guidance=guidance.branch, device=runner._execution_device)
    adapter.set_scale(settings.identity_scale or 0.0)
    with (
        _scheduler(runner, settings.scheduler or ""),
        adapter.fixed_tokens(inputs.phases[0].tokens) as use_tokens,
        kept_keys_and_values(pipeline.unet),
        in_windows(pipeline.unet, batch[0].prepared.layout),
        predictions(pipeline.unet, runner.scheduler, guidance=guidance.scale, branch=guidance.branch) as predicted,
        _taken_as_plain(pipeline, inpaints=task_named(request.task).inpaints),
        in_own_precision(pipeline.unet, *networks_of(request.components.get("controlnet"))),
    ):
        step_end = StepEnd(
            phases=inputs.phases,
            use_tokens=use_tokens,
            cancelled=cancelled,
            report=report,
            predicted=predicted,
            masks=inputs.masks,
            people=len(batch[0].prepared.everybody),
        )
        output = runner(
            **_asked(batch, device=runner._execution_device, dtype=pipeline.vae.dtype),
            **inputs.arguments,
            guidance_scale=guidance.scale,
            callback_on_step_end=step_end,
            callback_on_step_end_tensor_inputs=step_end.tensor_names,
            output_type=output_type,
        )
    return _rendered(output, batch, vae=pipeline.vae, output_type=output_type)


def _inputs(pipeline: Any, batch: Sequence[Shot], *, guidance: bool, device: torch.device) -> PipelineInputs:
    """Embeddings of everybody in the batch; the device is not the U-Net's when the pipeline is offloaded."""
    return pipeline_inputs(
        [embeddings for shot in batch for embeddings in shot.prepared.everybody],
        _phases(batch, pipeline=pipeline),
        guidance=guidance,
        device=device,
        dtype=pipeline.unet.dtype,
        places=batch[0].prepared.giver_places,
        grid=_grid(batch, pipeline=pipeline),
    )


def _grid(batch: Sequence[Shot], *, pipeline: Any) -> tuple[int, int]:
    """Height and width of what the U-Net sees, in latents."""
    prepared = batch[0].prepared
    if prepared.layout is not None:
        return prepared.layout.window
    width, height = prepared.settings.size or (1, 1)
    return height // pipeline.vae_scale_factor, width // pipeline.vae_scale_factor


def _phases(batch: Sequence[Shot], *, pipeline: Any) -> dict[int, tuple[Strengths, ...]]:
    """What acts in every image of the run, from which step on."""
    request, settings = batch[0].prepared.request, batch[0].prepared.settings
    return phases(
        [shot.prepared.settings.control for shot in batch for _ in shot.prepared.everybody],
        steps=task_named(request.task).steps_run(settings.steps or 0, request.inputs, pipeline=pipeline),
        merge_step=settings.merge_step if isinstance(settings.merge_step, int) else -1,
    )


@dataclass(frozen=True)
class _Guidance:
    """What a pipeline is given as its scale, and whether it runs the guidance branch."""

    scale: float
    branch: bool


def _guidance_scale(pipeline: Any, settings: GenerationSettings) -> _Guidance:
    """Models distilled for few steps read the scale instead of running the branch."""
    scale = settings.guidance or 0.0
    if pipeline.unet.config.time_cond_proj_dim is not None:
        return _Guidance(scale, branch=False)
    return _Guidance(max(scale, 1.0), branch=scale > 1)


def _asked(batch: Sequence[Shot], *, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of the pipeline that come from the requests alone; given latents in a type that can be decoded."""
    request, settings = batch[0].prepared.request, batch[0].prepared.settings
    arguments: dict[str, Any] = {
        **request.inputs,
        "num_inference_steps": settings.steps,
        "generator": [torch.Generator().manual_seed(shot.seed) for shot in batch for _ in shot.prepared.everybody],
    }
    if task_named(request.task).sized and settings.size is not None:
        arguments["width"], arguments["height"] = settings.size
    given = [shot.latents for shot in batch if shot.latents is not None for _ in shot.prepared.everybody]
    if given:
        arguments["latents"] = torch.cat(given).to(device, dtype)
    return arguments


@contextmanager
def _taken_as_plain(pipeline: Any, *, inpaints: bool) -> Iterator[None]:
    """Let a U-Net that reads latents and nothing else pass for one of 4 channels, however many its latents have.

    Stock pipelines for inpainting look at the number only to tell it from U-Nets that also read a mask. The attribute
    alone is changed: `register_to_config` would forget the others that were set so, the adapter's among them.
    """
    config = pipeline.unet.config
    channels = config.in_channels
    if inpaints and channels == pipeline.vae.config.latent_channels:
        config.in_channels = _PLAIN_CHANNELS
    try:
        yield
    finally:
        config.in_channels = channels


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
