"""One optimisation loop for every stage, on accelerate: one process or many, checkpoints that resume exactly."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from consistentid.training.engine import Engine
from consistentid.training.loop_config import LoopConfig
from consistentid.training.share import Share


@dataclass(frozen=True)
class Validation:
    """What is found out between two steps, for the log."""

    metrics: dict[str, float] = field(default_factory=dict)
    picture: Image.Image | None = None


Compute = Callable[[Callable[[], dict[str, Tensor]]], dict[str, Tensor]]
Validate = Callable[[int, Compute], Validation]


class Task(Protocol):
    """What a stage gives to the loop."""

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks whose parameters with requires_grad are trained."""
        ...

    def losses(self, share: Share) -> dict[str, Tensor]:
        """Scalars of one part of a step's batch; "loss" is minimised, all are logged."""
        ...


def trainable_parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters that ask for gradients, in a fixed order."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def fit(task: Task, config: LoopConfig, *, folder: Path, validate: Validate | None = None) -> bool:
    """Train until `config.steps` (True) or `max_minutes` (False), resuming from the newest checkpoint in folder.

    The task's modules end with their EMA weights only when the run is finished.

    Args:
        task: what to train.
        config: how.
        folder: gets the checkpoints and the logs; all processes see the same.
        validate: called by every process every `validate_every` steps, while the modules hold their EMA weights; what
            it returns goes into the log. Networks are to be run inside the second argument, where shared weights are
            put together.
    """
    engine = Engine(task, config, folder)
    start, began, finished = engine.resume(), time.monotonic(), False
    bar = tqdm(total=config.steps, initial=start, desc=folder.name, mininterval=5, disable=not engine.is_main)
    with _attention_kernel(engine.device), bar:
        for step in range(start, config.steps):
            losses = engine.step(step)
            done = step + 1
            bar.update()
            if done % config.log_every == 0:
                bar.set_postfix({name: f"{value:.4f}" for name, value in engine.log(losses, done).items()})
            timed_out = engine.agree(_is_over(config.max_minutes, began))
            if done % config.checkpoint_every == 0 or done == config.steps or timed_out:
                engine.save(done)
            if validate and config.validate_every and done % config.validate_every == 0:
                _show(engine, validate, done)
            if timed_out and done < config.steps:
                break
        else:
            engine.finish()
            finished = True
    engine.end()
    return finished


def _is_over(max_minutes: float | None, began: float) -> bool:
    return max_minutes is not None and time.monotonic() - began > 60 * max_minutes


def _attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Plain attention on the CPU, whose fused backward pass is slow for short sequences (1.58 s a step, 1.18 plain)."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _show(engine: Engine, validate: Validate, done: int) -> None:
    """Validate with the EMA weights and log what is found."""
    with engine.averaged():
        found = validate(done, engine.compute)
    engine.log_values(found.metrics, done)
    if found.picture is not None:
        engine.log_picture(np.asarray(found.picture), done)
