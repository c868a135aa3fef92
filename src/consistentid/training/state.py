"""Checkpoints of a run: written whole or not at all, the newest two kept."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn

KEEP = 2


class Stateful(Protocol):
    """Anything with a state dict: optimizer, schedule, EMA."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Go on from there."""
        ...


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


def save_state(folder: Path, step: int, *, modules: Mapping[str, nn.Module], parts: Mapping[str, Stateful]) -> Path:
    """Write a checkpoint under a temporary name, rename it, and drop the ones beyond the newest two."""
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, module in modules.items():
        frozen = {key for key, value in module.named_parameters() if not value.requires_grad}
        state = {key: value.contiguous() for key, value in module.state_dict().items() if key not in frozen}
        save_file(state, temporary / f"{name}.safetensors")
    torch.save({name: part.state_dict() for name, part in parts.items()}, temporary / "optimisation.pt")
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)
    return target


def load_state(checkpoint: Path | None, *, modules: Mapping[str, nn.Module], parts: Mapping[str, Stateful]) -> int:
    """Restore a checkpoint in place and return its step; 0 when there is none."""
    if checkpoint is None:
        return 0
    for name, module in modules.items():
        module.load_state_dict(load_file(checkpoint / f"{name}.safetensors"), strict=False)
    saved = torch.load(checkpoint / "optimisation.pt", map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(checkpoint.name.removeprefix("step-"))
