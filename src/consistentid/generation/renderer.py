"""Denoising runs of prepared requests: images that fit together share a run."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from tqdm import tqdm

from consistentid.generation.callbacks import Cancel, StepReport, Stop, as_cancel, raise_if
from consistentid.generation.denoise import OutputType, Rendered, denoise
from consistentid.generation.fingerprint import dtype_name, model_sha256
from consistentid.generation.origin import Origin
from consistentid.generation.portrait import Portrait
from consistentid.generation.presets import PRESETS
from consistentid.generation.request import PreparedRequest, Shot, batches
from consistentid.identity.adapter import IdentityAdapter

logger = logging.getLogger(__name__)


class Renderer:
    """One pipeline with its adapter attached; runs of several threads wait for each other.

    Args:
        pipeline: a stock pipeline.
        adapter: attached to it.
        origin: where their weights came from, for the records.

    Attributes:
        running: held during a run: identity scale, scheduler and image tokens are state of the one U-Net.
    """

    def __init__(self, pipeline: Any, adapter: IdentityAdapter, *, origin: Origin) -> None:
        self.pipeline = pipeline
        self.adapter = adapter
        self.origin = origin
        self.running = threading.Lock()

    @property
    def batch_size(self) -> int:
        """Images in one denoising run, unless the caller says otherwise."""
        return PRESETS[self.adapter.config.base].batch_size

    @cached_property
    def weights_sha256(self) -> str:
        """Of every parameter that takes part."""
        with self.running:
            return model_sha256(self.pipeline, self.adapter)

    def render(self, prepared: Sequence[PreparedRequest], **options: Any) -> list[list[Portrait]]:
        """Portraits of prepared requests, in their order; options as in `portraits`."""
        shots = [[Shot(one, k) for k in range(one.settings.num_images)] for one in prepared]
        made = iter(self.portraits([shot for group in shots for shot in group], **options))
        return [[next(made) for _ in group] for group in shots]

    def portraits(
        self,
        shots: Sequence[Shot],
        *,
        output_type: OutputType = "pil",
        batch_size: int | None = None,
        cancel: Cancel | Stop | None = None,
        callback: Callable[[StepReport], None] | None = None,
        progress: bool = False,
    ) -> list[Portrait]:
        """Single images of prepared requests, in their order; see `PortraitGenerator.generate` for the arguments."""
        runs = batches(shots, batch_size=batch_size or self.batch_size)
        cancelled = as_cancel(cancel)
        made: dict[int, Portrait] = {}
        total = sum(run[0].prepared.settings.steps or 0 for run in runs)
        with tqdm(total=total, desc="portraits", unit="step", disable=not progress, leave=False) as bar:

            def report(step: StepReport) -> None:
                bar.update()
                if callback is not None:
                    callback(step)

            for run in runs:
                rendered = self.run(run, cancelled=cancelled, report=report, output_type=output_type)
                for position, (shot, one) in enumerate(zip(run, rendered, strict=True)):
                    made[id(shot)] = self._portrait(shot, one, batch_size=len(run), batch_position=position)
        return [made[id(shot)] for shot in shots]

    def run(
        self,
        batch: Sequence[Shot],
        *,
        cancelled: Cancel,
        report: Callable[[StepReport], None] = lambda _: None,
        output_type: OutputType = "pil",
    ) -> list[Rendered]:
        """One denoising run of images with one `run_key`; runs of several threads wait for each other."""
        raise_if(cancelled)
        with self.running:
            return denoise(
                self.pipeline,
                batch,
                adapter=self.adapter,
                cancelled=cancelled,
                report=report,
                output_type=output_type,
            )

    def _portrait(self, shot: Shot, rendered: Rendered, *, batch_size: int, batch_position: int) -> Portrait:
        if rendered.withheld:
            logger.warning("the safety checker blacked image %d of a request", shot.index)  # prompts are personal
        settings = shot.record(
            **self.origin.model_dump(),
            weights_sha256=self.weights_sha256,
            dtype=dtype_name(self.pipeline.unet),
            device=str(self.pipeline._execution_device),
            threads=torch.get_num_threads(),
            batch_size=batch_size,
            batch_position=batch_position,
        )
        return Portrait(settings, rendered.picture, rendered.latents, rendered.withheld)
