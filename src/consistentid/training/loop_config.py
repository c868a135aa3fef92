"""Settings of the optimisation loop."""

import math
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoopConfig(BaseModel):
    """Settings of the optimisation loop."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    final_learning_rate: float = Field(default=0.02, ge=0, le=1, description="as a fraction of learning_rate")
    optimizer: Literal["adamw", "adamw8bit"] = Field(default="adamw", description="adamw8bit needs bitsandbytes")
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = 1.0
    accumulate: int = Field(default=1, gt=0, description="batches whose gradients are averaged before an update")
    ema_decay: float = Field(default=0.998, ge=0, lt=1, description="0: no average of the weights")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    seed: int = 0
    checkpoint_every: int = Field(default=250, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0, description="the newest ones")
    validate_every: int = Field(default=0, ge=0, description="0 switches validation off")
    log_every: int = Field(default=20, gt=0)
    trackers: tuple[str, ...] = Field(default=("tensorboard",), description="tensorboard, wandb, ...: accelerate's")
    max_minutes: float | None = Field(default=None, description="stop after a checkpoint when this time is over")


def until(config: LoopConfig, deadline: float | None) -> LoopConfig:
    """The same settings, but stopped at a deadline (of `time.monotonic`) when that comes first."""
    if deadline is None:
        return config
    left = max(0.0, (deadline - time.monotonic()) / 60)
    return config.model_copy(
        update={"max_minutes": left if config.max_minutes is None else min(left, config.max_minutes)}
    )


def learning_rate_factor(step: int, *, config: LoopConfig) -> float:
    """Linear warm-up, then as the schedule says to `final_learning_rate` (or constant)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    left = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return config.final_learning_rate + (1 - config.final_learning_rate) * left[config.schedule]
