"""A killed and resumed run ends with the same weights as an uninterrupted one."""

import multiprocessing
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from consistentid.training.loop import fit
from consistentid.training.loop_config import LoopConfig, learning_rate_factor
from consistentid.training.share import Share
from consistentid.training.state import checkpoints

CONFIG = {"steps": 60, "learning_rate": 0.01, "warmup_steps": 5, "checkpoint_every": 7, "mixed_precision": "no"}


class LineTask:
    """A small network that learns a linear map from random batches."""

    def __init__(self, *, pause: float = 0.0) -> None:
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 2))
        self.pause = pause

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The network."""
        return {"network": self.network}

    def losses(self, share: Share) -> dict[str, Tensor]:
        """Squared error."""
        time.sleep(self.pause)
        x = torch.randn(8, 4, generator=share.generator())
        return {"loss": (self.network(x) - x[:, :2]).square().mean()}


def _final(folder: Path) -> dict[str, Tensor]:
    return load_file(checkpoints(folder)[-1] / "trained.safetensors")


def test_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = LineTask()
    config = CONFIG | {"steps": 16}
    assert fit(whole, LoopConfig(**config), folder=tmp_path / "whole")
    for _ in range(20):
        task = LineTask()
        if fit(task, LoopConfig(**config, max_minutes=1e-4), folder=tmp_path / "parts"):
            break
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), task.network.parameters(), strict=True))


def test_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = LineTask()
    fit(whole, LoopConfig(**CONFIG), folder=tmp_path / "whole")
    process = multiprocessing.get_context("fork").Process(target=_fit_slowly, args=(tmp_path / "killed",))
    process.start()
    deadline = time.monotonic() + 90
    while not checkpoints(tmp_path / "killed") and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert checkpoints(tmp_path / "killed"), "no checkpoint was written in time"
    task = LineTask()
    assert fit(task, LoopConfig(**CONFIG), folder=tmp_path / "killed")
    first, second = _final(tmp_path / "whole"), _final(tmp_path / "killed")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not list((tmp_path / "killed").glob(".step-*"))
    assert len(checkpoints(tmp_path / "killed")) <= 2


def _fit_slowly(folder: Path) -> None:
    torch.set_num_threads(1)  # a fork has no threads of its parent
    fit(LineTask(pause=0.02), LoopConfig(**CONFIG), folder=folder)


def test_schedule_warms_up_and_falls() -> None:
    config = LoopConfig(**CONFIG)
    factors = [learning_rate_factor(step, config=config) for step in range(config.steps)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 0.05
    assert all(a >= b for a, b in pairwise(factors[5:]))
