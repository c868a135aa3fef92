"""One optimisation loop for every stage: accelerate, cosine schedule, EMA, checkpoints that resume exactly.

All randomness of a step (samples, noise, dropout of conditions) comes from a generator seeded with (seed, step), so
a resumed run sees the same numbers as an uninterrupted one.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from diffusers.training_utils import EMAModel
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from consistentid.devices import is_fast_in_bfloat16
from consistentid.training.state import latest_checkpoint, load_state, save_state

logger = logging.getLogger(__name__)

Validate = Callable[[int], Image.Image]


class LoopConfig(BaseModel):
    """Settings of the optimisation loop."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    final_learning_rate: float = Field(default=0.02, description="as a fraction of learning_rate")
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = 1.0
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    seed: int = 0
    checkpoint_every: int = Field(default=250, gt=0)
    validate_every: int = Field(default=0, ge=0, description="0 switches validation off")
    log_every: int = Field(default=20, gt=0)
    max_minutes: float | None = Field(default=None, description="stop after a checkpoint when this time is over")


class Task(Protocol):
    """What a stage gives to the loop."""

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks whose parameters with requires_grad are trained."""
        ...

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars of one batch drawn with the generator; "loss" is minimised, all are logged."""
        ...


def learning_rate_factor(step: int, *, config: LoopConfig) -> float:
    """Linear warm-up, then cosine to `final_learning_rate`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.final_learning_rate + (1 - config.final_learning_rate) * cosine


def trainable_parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters that ask for gradients, in a fixed order."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The one source of randomness of a step on one process."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 1_009 + rank)


def _attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Plain attention on the CPU, whose fused backward pass is slow for short sequences (1.58 s a step, 1.18 plain)."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def fit(task: Task, config: LoopConfig, *, folder: Path, validate: Validate | None = None) -> bool:
    """Train until `config.steps` (True) or `max_minutes` (False), resuming from the newest checkpoint in folder.

    The task's modules end with their EMA weights only when the run is finished.

    Args:
        task: what to train.
        config: how.
        folder: gets the checkpoints and the TensorBoard log.
        validate: called every `validate_every` steps while the modules hold their EMA weights; the picture that it
            returns goes into the log.
    """
    run = _Run(task, config, folder)
    start, began, finished = run.resume(), time.monotonic(), False
    bar = tqdm(total=config.steps, initial=start, desc=folder.name, mininterval=5)
    with _attention_kernel(run.accelerator.device), bar:
        for step in range(start, config.steps):
            losses = run.step(step)
            done = step + 1
            bar.update()
            if done % config.log_every == 0:
                bar.set_postfix({name: f"{value:.4f}" for name, value in run.log(losses, done).items()})
            timed_out = config.max_minutes is not None and time.monotonic() - began > 60 * config.max_minutes
            if done % config.checkpoint_every == 0 or done == config.steps or timed_out:
                run.save(done)
            if validate and config.validate_every and done % config.validate_every == 0:
                run.show(validate, done)
            if timed_out and done < config.steps:
                break
        else:
            run.average.copy_to(run.parameters)
            finished = True
    run.accelerator.end_training()
    return finished


class _Run:
    """The parts of a run that change together and are saved together."""

    def __init__(self, task: Task, config: LoopConfig, folder: Path) -> None:
        self.task, self.config, self.folder = task, config, folder
        precision = config.mixed_precision
        if precision == "auto":
            precision = "bf16" if is_fast_in_bfloat16(PartialState().device) else "no"
        self.accelerator = Accelerator(mixed_precision=precision, log_with="tensorboard", project_dir=str(folder))
        self.accelerator.init_trackers("log")
        self.parameters = trainable_parameters(task.modules.values())
        optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config=config))
        self.optimizer, self.schedule = self.accelerator.prepare(optimizer, schedule)
        self.average = EMAModel(self.parameters, decay=config.ema_decay, use_ema_warmup=True, power=0.75)

    @property
    def _parts(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "schedule": self.schedule, "average": self.average}

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one, and return the number of steps done."""
        return load_state(latest_checkpoint(self.folder), modules=self.task.modules, parts=self._parts)

    def save(self, done: int) -> None:
        """Write a checkpoint."""
        save_state(self.folder, done, modules=self.task.modules, parts=self._parts)

    def step(self, step: int) -> dict[str, Tensor]:
        """One batch, one update."""
        generator = step_generator(self.config.seed, step, self.accelerator.process_index)
        with self.accelerator.autocast():
            losses = self.task.losses(generator)
        self.accelerator.backward(losses["loss"])
        self.accelerator.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.step(self.parameters)
        return losses

    def log(self, losses: dict[str, Tensor], done: int) -> dict[str, float]:
        """Send the losses to the trackers."""
        values = {name: float(value.detach()) for name, value in losses.items()}
        self.accelerator.log(values, step=done)
        return values

    def show(self, validate: Validate, done: int) -> None:
        """Validate with the EMA weights and log the picture."""
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        picture = validate(done)
        self.average.restore(self.parameters)
        for tracker in self.accelerator.trackers:
            tracker.log_images({"portraits": np.asarray(picture)[None]}, step=done, dataformats="NHWC")
