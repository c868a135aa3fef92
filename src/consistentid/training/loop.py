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
from typing import Protocol

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from consistentid.training.state import latest_checkpoint, load_state, save_state

logger = logging.getLogger(__name__)


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
    mixed_precision: str = "bf16"
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


def fit(
    task: Task,
    config: LoopConfig,
    *,
    folder: Path,
    validate: Callable[[int], None] | None = None,
) -> bool:
    """Train until `config.steps` (True) or `max_minutes` (False), resuming from the newest checkpoint in folder.

    The task's modules end with their EMA weights only when the run is finished.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision, log_with="tensorboard", project_dir=str(folder))
    accelerator.init_trackers("log")
    names, modules = zip(*task.modules.items(), strict=True)
    parameters = trainable_parameters(modules)
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config=config))
    optimizer, schedule = accelerator.prepare(optimizer, schedule)
    average = EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    parts = {"optimizer": optimizer, "schedule": schedule, "average": average}
    state = dict(zip(names, modules, strict=True))
    start = load_state(latest_checkpoint(folder), modules=state, parts=parts)
    began = time.monotonic()
    with (
        _attention_kernel(accelerator.device),
        tqdm(total=config.steps, initial=start, desc=folder.name, mininterval=5) as progress,
    ):
        for step in range(start, config.steps):
            with accelerator.autocast():
                losses = task.losses(step_generator(config.seed, step, accelerator.process_index))
            accelerator.backward(losses["loss"])
            accelerator.clip_grad_norm_(parameters, config.gradient_clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            average.step(parameters)
            done = step + 1
            progress.update()
            if done % config.log_every == 0:
                values = {name: float(value.detach()) for name, value in losses.items()}
                accelerator.log(values, step=done)
                progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
            timed_out = config.max_minutes is not None and time.monotonic() - began > 60 * config.max_minutes
            if done % config.checkpoint_every == 0 or done == config.steps or timed_out:
                save_state(folder, done, modules=state, parts=parts)
            if validate and config.validate_every and done % config.validate_every == 0:
                average.store(parameters)
                average.copy_to(parameters)
                validate(done)
                average.restore(parameters)
            if timed_out and done < config.steps:
                accelerator.end_training()
                return False
    average.copy_to(parameters)
    accelerator.end_training()
    return True
