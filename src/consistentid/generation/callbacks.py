"""What happens between two denoising steps: cancel, report, and the change to what the next phase reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from consistentid.errors import GenerationCancelled
from consistentid.generation.embeddings import Phase
from consistentid.generation.overflow import check_finite
from consistentid.generation.preview import Predict

Cancel = Callable[[], bool]


class Stop(Protocol):
    """What can be asked whether to stop: a `threading.Event` for example."""

    def is_set(self) -> bool:
        """True once the work shall stop."""
        ...


@dataclass(frozen=True)
class StepReport:
    """Where a denoising run stands.

    Attributes:
        step: steps done.
        steps: steps of this run.
        latents: (b, c, h, w) after the step.
        predicted: gives the final latents that the step predicts.
    """

    step: int
    steps: int
    latents: Tensor
    predicted: Predict


@dataclass(frozen=True)
class StepEnd:
    """A `callback_on_step_end` for stock pipelines.

    Attributes:
        phases: what is read from which step on, the first one from 0; steps are counted from 0, and a scheduler of
            order 2 calls twice a step.
        use_tokens: exchanges the identity tokens.
        cancelled: asked after every step.
        report: told after every step.
        predicted: see `StepReport`.
        masks: where identity tokens act, as the U-Net reads it; None: they all act everywhere.
        people: rows of each picture, which all hold the same latents; only one of them is reported and decoded.
    """

    phases: Mapping[int, Phase]
    use_tokens: Callable[[Tensor], None]
    cancelled: Cancel
    report: Callable[[StepReport], None]
    predicted: Predict
    masks: Tensor | None = None
    people: int = 1

    @property
    def tensor_names(self) -> list[str]:
        """What the pipeline has to hand over."""
        return ["latents", *self.phases[0].tensors]

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Called by the pipeline with the index of the step just done; gives back what the next one shall use."""
        del timestep
        raise_if(self.cancelled)
        latents, last = tensors["latents"][:: self.people], index + 1 == pipeline.num_timesteps
        if last:
            check_finite(latents, unet=pipeline.unet)
        order = pipeline.scheduler.order
        if (index + 1) % order == 0 or last:
            steps = -(-pipeline.num_timesteps // order)
            predicted = lambda: self.predicted()[:: self.people]  # noqa: E731
            self.report(StepReport(step=index // order + 1, steps=steps, latents=latents, predicted=predicted))
        if last:
            return {"latents": latents}
        next_one = self.phases.get((index + 1) // order) if (index + 1) % order == 0 else None
        if next_one is None:
            return {}
        self.use_tokens(next_one.tokens)
        if self.masks is not None and next_one.masks is not None:
            self.masks.copy_(next_one.masks)
        return {name: value.to(tensors[name].dtype) for name, value in next_one.tensors.items()}


def raise_if(cancelled: Cancel) -> None:
    """Stop the work when the caller asked for it.

    Raises:
        GenerationCancelled: the caller did.
    """
    if cancelled():
        raise GenerationCancelled("generation was cancelled before it was complete; nothing of this run is kept")


def as_cancel(stop: Cancel | Stop | None) -> Cancel:
    """One way to ask, from an event, a callable or nothing."""
    if stop is None:
        return lambda: False
    return stop if callable(stop) else stop.is_set
