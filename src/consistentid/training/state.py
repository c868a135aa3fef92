"""Checkpoints of a run: written whole or not at all, the newest ones kept."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import extract_model_from_parallel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn

from consistentid.errors import InvalidData
from consistentid.training.process import this_process

_AVERAGE = "average.pt"
_TRAINED = "trained.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, the oldest first."""
    return sorted(folder.glob("step-" + "[0-9]" * 8))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = checkpoints(folder)
    return found[-1] if found else None


def save_modules(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write every parameter and buffer of a finished stage, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, module in modules.items():
        state = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_file(state, temporary / f"{name}.safetensors")
    temporary.rename(folder)


def load_modules(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Read what `save_modules` wrote."""
    for name, module in modules.items():
        module.load_state_dict(load_file(folder / f"{name}.safetensors"))


def save_state(folder: Path, step: int, *, accelerator: Accelerator, average: EMAModel | None, keep: int) -> None:
    """Write a checkpoint under a temporary name, rename it, and drop the ones beyond the newest.

    Every process calls it. Frozen weights are left out, but where the processes share them (FSDP).
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    accelerator.wait_for_everyone()
    hook = accelerator.register_save_state_pre_hook(_save_trained)
    frozen = {"exclude_frozen_parameters": True} if accelerator.distributed_type == DistributedType.DEEPSPEED else {}
    accelerator.save_state(str(temporary), **frozen)
    hook.remove()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if average is not None:
            torch.save(average.state_dict(), temporary / _AVERAGE)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_state(checkpoint: Path | None, *, accelerator: Accelerator, average: EMAModel | None) -> int:
    """Restore a checkpoint in place and return its step; 0 when there is none."""
    if checkpoint is None:
        return 0
    hook = accelerator.register_load_state_pre_hook(_load_trained)
    frozen = {"load_module_strict": False} if accelerator.distributed_type == DistributedType.DEEPSPEED else {}
    accelerator.load_state(str(checkpoint), **frozen)
    hook.remove()
    if average is not None:
        average.load_state_dict(torch.load(checkpoint / _AVERAGE, map_location="cpu", weights_only=True))
    return int(checkpoint.name.removeprefix("step-"))


def _save_trained(models: list[nn.Module], weights: list[dict[str, Any]], folder: str) -> None:
    """Write what is trained, and buffers, under names that do not depend on the number of processes."""
    if not weights:  # shared weights are written by the engine that shares them
        return
    weights.clear()
    if this_process().is_main_process:
        save_file({key: value.contiguous() for key, value in _trained(models[0]).items()}, Path(folder) / _TRAINED)


def _load_trained(models: list[nn.Module], folder: str) -> None:
    if models:
        saved, trained = load_file(Path(folder) / _TRAINED), _trained(models.pop())
        if saved.keys() != trained.keys():
            raise InvalidData(f"{folder} is the checkpoint of a run that trained other parts; choose another folder")
        for key, value in trained.items():
            value.copy_(saved[key])


def _trained(model: nn.Module) -> dict[str, torch.Tensor]:
    networks = extract_model_from_parallel(model)
    frozen = {key for key, value in networks.named_parameters() if not value.requires_grad}
    return {key: value for key, value in networks.state_dict().items() if key not in frozen}
