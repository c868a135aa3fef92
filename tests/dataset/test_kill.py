"""Builds that are killed, by somebody or by a photo, in processes of their own; and the same builds on Ray."""

import multiprocessing
import random
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from PIL import Image

from consistentid.dataset.builder import build_dataset

_SCRIPT = Path(__file__).with_name("tiny_build.py")
_SECONDS = 0.02  # a photo, so that a kill hits the middle


def _build(photos: Path, out: Path) -> None:
    sys.path.insert(0, str(_SCRIPT.parent))
    import tiny_build  # by name, so that other processes find it too

    make = partial(tiny_build.stages, seconds=_SECONDS)
    build_dataset([photos], out, settings=tiny_build.SETTINGS, stages=make)


def _start(photos: Path, out: Path) -> BaseProcess:
    """A build in a fork, which imports nothing anew."""
    process = multiprocessing.get_context("fork").Process(target=_build, args=(photos, out))
    process.start()
    return process


def _code(process: BaseProcess) -> int | None:
    """How it ends."""
    process.join()
    return process.exitcode


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _kill_after(chunks: int, process: BaseProcess, out: Path, delay: float) -> None:
    """Kill a build a moment after so many chunks were there."""
    done = out / ".work" / "chunks"
    deadline = time.monotonic() + 120
    while len(list(done.glob("*.parquet"))) < chunks:
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    assert _code(process) == -signal.SIGKILL


@pytest.mark.parametrize("chunks", [(3,), pytest.param((0, 1, 3, 4, 6), marks=pytest.mark.slow)])
def test_a_build_that_was_killed_gives_the_same_bytes(patterns: Path, tmp_path: Path, chunks: tuple[int, ...]) -> None:
    whole = _start(patterns, tmp_path / "whole")
    rng = random.Random(0)
    for count in chunks:
        _kill_after(count, _start(patterns, tmp_path / "out"), tmp_path / "out", delay=rng.uniform(0, 0.1))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert _code(_start(patterns, tmp_path / "out")) == 0
    assert _code(whole) == 0
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")
    assert not list(tmp_path.rglob(".*"))


def test_a_photo_that_kills_its_reader_is_listed(patterns: Path, tmp_path: Path) -> None:
    Image.new("RGB", (160, 160), "red").save(patterns / "01 poison.png")
    out = tmp_path / "out"
    assert _code(_start(patterns, out)) == -signal.SIGKILL
    assert _code(_start(patterns, out)) == 0
    assert '"origin": "01 poison.png", "rule": "crashed"' in (out / "rejected.jsonl").read_text()
    assert not (out / ".work").exists()


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_survives_poison(patterns: Path, tmp_path: Path) -> None:
    Image.new("RGB", (160, 160), "red").save(patterns / "01 poison.png")
    assert _code(_start(patterns, tmp_path / "here")) == -signal.SIGKILL
    assert _code(_start(patterns, tmp_path / "here")) == 0
    command = [sys.executable, str(_SCRIPT), str(patterns), str(tmp_path / "ray"), "ray", str(_SECONDS)]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    assert _content(tmp_path / "ray") == _content(tmp_path / "here")
