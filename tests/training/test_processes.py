"""Several processes train as one, share weights out, and may be killed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed import TCPStore

from consistentid.generation.generator import PortraitGenerator
from consistentid.training.run import load_config, run
from consistentid.training.state import checkpoints

Settings = dict[str, Any]
_SHARED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "BasicTransformerBlock",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}


@pytest.mark.parametrize(
    "shared",
    [None, pytest.param({}, marks=pytest.mark.slow), pytest.param(_SHARED, marks=pytest.mark.slow)],
    ids=["forked", "ddp", "fsdp"],
)
def test_two_processes_train_as_one_with_the_doubled_batch(
    settings: Settings, write: Any, tmp_path: Path, shared: dict[str, str] | None
) -> None:
    whole = settings | {"batch_size": 4, "out": str(tmp_path / "whole")}
    halves = settings | {"batch_size": 2, "out": str(tmp_path / "halves")}
    halves["loop"] = settings["loop"] | {"validate_every": 3 if shared else 0}
    run(load_config(write(whole)))
    if shared is None:
        _fork(write(halves))
    else:
        _launch(write(halves), environment=shared)
    first, second = (_losses(Path(one["out"])) for one in (whole, halves))
    assert len(first) == 3
    assert first == pytest.approx(second, abs=1e-4)
    folder = Path(halves["out"]) / "adapter"
    assert load_file(folder / "adapter.safetensors")
    PortraitGenerator.from_pretrained(settings["base"], adapter=folder, cache=False)


@pytest.mark.slow
def test_five_kills_change_nothing(settings: Settings, write: Any, tmp_path: Path) -> None:
    settings["loop"] |= {"steps": 40, "checkpoint_every": 4, "ema_decay": 0.9}
    whole = settings | {"out": str(tmp_path / "whole")}
    killed = settings | {"out": str(tmp_path / "killed")}
    run(load_config(write(whole)))
    config, rng = write(killed, "killed.yaml"), random.Random(0)
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-m", "consistentid", "train", config], **_quiet())
        before, deadline = _done(killed), time.monotonic() + 120
        while _done(killed) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(load_config(config))
    first, second = (load_file(Path(one["out"]) / "adapter" / "adapter.safetensors") for one in (whole, killed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not list(Path(killed["out"]).rglob(".*"))


def _done(settings: Settings) -> int:
    newest = checkpoints(Path(settings["out"]))[-1:]
    return int(newest[0].name.removeprefix("step-")) if newest else 0


def _quiet() -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}


def _fork(config: Path) -> None:
    """Two processes as the launcher makes them, that import nothing anew."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [
        multiprocessing.get_context("fork").Process(target=_run_as, args=(config, rank, store.port)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]


def _run_as(config: Path, rank: int, port: int) -> None:
    torch.set_num_threads(1)  # a fork has no threads of its parent
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(place | ranks | {"ACCELERATE_USE_CPU": "true"})
    AcceleratorState._reset_state(reset_partial_state=True)  # known since the run on one process
    run(load_config(config))


def _launch(config: Path, *, environment: dict[str, str]) -> None:
    """Two processes on this machine, connected by gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "consistentid", "train", config],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"} | environment,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def _losses(folder: Path) -> list[float]:
    events = EventAccumulator(str(folder / "log"))
    events.Reload()
    return [event.value for event in events.Scalars("loss")]
