"""Denoising runs of prepared requests: images that fit together share a run."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from consistentid.generation.callbacks import Cancel, StepReport, Stop, as_cancel, raise_if
from consistentid.generation.denoise import OutputType, Rendered, denoise
from consistentid.generation.fingerprint import dtype_name, model_sha256
from consistentid.generation.origin import Origin
from consistentid.generation.portrait import Portrait, audit_facts
from consistentid.generation.presets import PRESETS
from consistentid.generation.request import GenerationRequest, PreparedRequest, Shot, batches
from consistentid.generation.tasks import task_named
from consistentid.identity.adapter import IdentityAdapter
from consistentid.images import PhotoSource, load_photo
from consistentid.trust.gates import Gate, SafetyChecker
from consistentid.trust.marking import Marking

logger = logging.getLogger(__name__)


class Renderer:
    """One pipeline with its adapter attached; runs of several threads wait for each other.

    Args:
        pipeline: a stock pipeline.
        adapter: attached to it.
        origin: where their weights came from, for the records.
        gates: look at every picture, and withhold some.
        marking: of the portraits' files.

    Attributes:
        running: held during a run: identity scale, scheduler and image tokens are state of the one U-Net.
    """

    def __init__(
        self,
        pipeline: Any,
        adapter: IdentityAdapter,
        *,
        origin: Origin,
        gates: Sequence[Gate] = (),
        marking: Marking | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.adapter = adapter
        self.origin = origin
        self.gates = tuple(gates)
        self.marking = marking or Marking()
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
            rendered = denoise(
                self.pipeline,
                batch,
                adapter=self.adapter,
                cancelled=cancelled,
                report=report,
                output_type=output_type,
            )
        return self._gated(rendered) if output_type == "pil" else rendered

    def flagged(self, pictures: Sequence[Image.Image]) -> list[bool]:
        """Whether a gate, or the pipeline's own checker, flags each picture: for previews, which no pipeline checks."""
        own = getattr(self.pipeline, "safety_checker", None)
        gates = [*self.gates, *([] if own is None else [SafetyChecker(own)])]
        flags = [gate.flagged(pictures) for gate in gates]
        return [any(row[k] for row in flags) for k in range(len(pictures))]

    def _gated(self, rendered: Sequence[Rendered]) -> list[Rendered]:
        """Black pictures in the place of those that a gate flags; latents are no pictures yet and pass."""
        passed = list(rendered)
        for gate in self.gates:
            shown = [k for k, one in enumerate(passed) if one.picture is not None and not one.withheld]
            flags = gate.flagged([passed[k].picture for k in shown]) if shown else []  # type: ignore[misc]
            for k in (k for k, flag in zip(shown, flags, strict=True) if flag):
                logger.warning("the %s flagged a picture, which is withheld", gate.name)
                black = Image.new("RGB", passed[k].picture.size)  # type: ignore[union-attr]
                passed[k] = Rendered(black, None, withheld=True)
        return passed

    def _portrait(self, shot: Shot, rendered: Rendered, *, batch_size: int, batch_position: int) -> Portrait:
        request = shot.prepared.request
        settings = shot.record(
            **self.origin.model_dump(),
            weights_sha256=self.weights_sha256,
            dtype=dtype_name(self.pipeline.unet),
            device=str(self.pipeline._execution_device),
            threads=torch.get_num_threads(),
            batch_size=batch_size,
            batch_position=batch_position,
        )
        if rendered.withheld:
            logger.warning("image %d of a request was withheld", shot.index)  # no prompt: logs are kept and passed on
            if self.marking.audit is not None:
                self.marking.audit.note("withheld", audit_facts(settings), personal={"prompt": request.prompt})
        return Portrait(settings, rendered.picture, rendered.latents, rendered.withheld, self.marking, _edited(request))


def _edited(request: GenerationRequest) -> Image.Image | None:
    """The picture that a task changes, from any of the forms that pipelines take."""
    if not task_named(request.task).keeps_proportions:
        return None
    given = request.inputs["image"]
    if isinstance(given, PhotoSource):
        return load_photo(given)
    from diffusers.image_processor import VaeImageProcessor

    processor = VaeImageProcessor(do_resize=False)
    pictures: list[Image.Image] = processor.postprocess(processor.preprocess(given))
    return pictures[0]
