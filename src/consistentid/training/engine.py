"""A run on accelerate: the parts that change together and are saved together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from consistentid.devices import is_fast_in_bfloat16
from consistentid.errors import InvalidSettings
from consistentid.training.loop_config import LoopConfig, learning_rate_factor
from consistentid.training.process import this_process
from consistentid.training.share import Share
from consistentid.training.state import latest_checkpoint, load_state, save_state

if TYPE_CHECKING:
    from consistentid.training.loop import Task

_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class Engine:
    """Networks, optimizer, schedule and average of the weights, on the processes that accelerate started.

    Args:
        task: what to train; its networks are moved to the device.
        config: how.
        folder: of checkpoints and logs.

    Raises:
        InvalidSettings: nothing is to be trained, or the settings do not fit how the processes share the weights.
    """

    def __init__(self, task: "Task", config: LoopConfig, folder: Path) -> None:
        self.config, self.folder, self._task = config, folder, task
        self._accelerator = _accelerator(config, folder)
        networks = _Networks(task.modules)
        self._parameters = [one for one in networks.parameters() if one.requires_grad]
        if not self._parameters:
            raise InvalidSettings("nothing is to be trained; name at least one part under `train`")
        optimizer = _optimizer(self._parameters, config, self.device)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config=config))
        prepared = self._accelerator.prepare(networks, optimizer, schedule)
        self._networks, self._optimizer, self._schedule = prepared
        self._average: EMAModel | None = None
        if config.ema_decay:
            if self._accelerator.distributed_type in _SHARDED:
                raise InvalidSettings("an average of sharded weights is not kept; set ema_decay: 0")
            self._average = EMAModel(self._parameters, decay=config.ema_decay, use_ema_warmup=True, power=0.75)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self._accelerator.device
        return device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self._accelerator.is_main_process)

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one, and return the number of steps done."""
        return load_state(latest_checkpoint(self.folder), accelerator=self._accelerator, average=self._average)

    def save(self, done: int) -> None:
        """Write a checkpoint."""
        keep = self.config.keep_checkpoints
        save_state(self.folder, done, accelerator=self._accelerator, average=self._average, keep=keep)

    def compute(self, function: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What a function finds that runs the networks, whose weights may be shared out over the processes."""
        found: dict[str, Tensor] = self._networks(function)
        return found

    def step(self, step: int) -> dict[str, Tensor]:
        """One update from all parts of a batch; the mean losses of this process's parts."""
        accelerator, turns = self._accelerator, self.config.accumulate
        first = Share(self.config.seed, step, accelerator.process_index, accelerator.num_processes, turns=turns)
        found: list[dict[str, Tensor]] = []
        for turn in range(turns):
            with accelerator.accumulate(self._networks):
                losses = self.compute(partial(self._task.losses, first.after(turn)))
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self._networks.parameters(), self.config.gradient_clip)
                self._optimizer.step()
                self._optimizer.zero_grad()
            found.append({name: value.detach() for name, value in losses.items()})
        self._schedule.step()
        if self._average is not None:
            self._average.step(self._parameters)
        return {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}

    def log(self, losses: dict[str, Tensor], done: int) -> dict[str, float]:
        """Send the mean losses of all processes to the trackers."""
        reduced = self._accelerator.reduce(losses, reduction="mean")
        values = {name: float(value) for name, value in reduced.items()}
        self.log_values({**values, "learning_rate": self._schedule.get_last_lr()[0]}, done)
        return values

    def log_values(self, values: dict[str, float], done: int) -> None:
        """Send numbers to the trackers."""
        self._accelerator.log(values, step=done)

    def log_picture(self, picture: np.ndarray, done: int) -> None:
        """Send a picture to the trackers that show pictures."""
        for tracker in self._accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"portraits": picture[None]}, step=done, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                tracker.log_images({"portraits": [picture]}, step=done)

    def agree(self, wish: bool) -> bool:
        """What the main process wishes, for all."""
        if self._accelerator.num_processes == 1:
            return wish
        asked = torch.tensor(float(wish and self.is_main), device=self.device)
        return bool(self._accelerator.reduce(asked, reduction="sum"))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The networks hold their average weights inside the block."""
        if self._average is None:
            yield
            return
        self._average.store(self._parameters)
        self._average.copy_to(self._parameters)
        try:
            yield
        finally:
            self._average.restore(self._parameters)

    def finish(self) -> None:
        """Leave the average weights in the networks."""
        if self._average is not None:
            self._average.copy_to(self._parameters)

    def end(self) -> None:
        """Close the logs and let go of the networks; the processes stay connected for the next stage."""
        for tracker in self._accelerator.trackers:
            tracker.finish()
        self._accelerator.free_memory()
        AcceleratorState._reset_state()  # the next stage may compute in another precision


class _Networks(nn.Module):
    """The networks of a task as one module, whose forward pass is whatever is computed with them."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return compute()


def _accelerator(config: LoopConfig, folder: Path) -> Accelerator:
    precision = config.mixed_precision
    if precision == "auto":
        precision = "bf16" if is_fast_in_bfloat16(this_process().device) else "no"
    accelerator = Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=config.accumulate,
        step_scheduler_with_optimizer=False,
        log_with=list(config.trackers) or None,
        project_dir=str(folder),
        # Which parts take part in a step depends on the conditions that are dropped.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    _share_on_cpu(accelerator)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
    accelerator.init_trackers("log")
    return accelerator


def _share_on_cpu(accelerator: Accelerator) -> None:
    """Share weights out on the CPU too when the launcher says so, which accelerate does on accelerators only."""
    process = this_process()
    if process.device.type == "cpu" and process.num_processes > 1 and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        process.distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()


def _optimizer(parameters: list[nn.Parameter], config: LoopConfig, device: torch.device) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise InvalidSettings("adamw8bit needs a library: pip install bitsandbytes") from error
    if device.type == "cpu":
        raise InvalidSettings("adamw8bit needs an accelerator; on the CPU take optimizer: adamw")
    eight_bit: torch.optim.Optimizer = AdamW8bit(parameters, **options)
    return eight_bit
