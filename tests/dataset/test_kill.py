"""Builds that are killed, by somebody or by a photo, in processes of their own; and the same builds on Ray."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

_SCRIPT = Path(__file__).with_name("tiny_build.py")
_SECONDS = "0.02"  # a photo, so that a kill hits the middle


def _start(photos: Path, out: Path, engine: str = "here") -> subprocess.Popen[bytes]:
    command = [sys.executable, str(_SCRIPT), str(photos), str(out), engine, _SECONDS]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _kill_after(chunks: int, photos: Path, out: Path, delay: float) -> None:
    """Start a build and kill it a moment after so many chunks were there."""
    process = _start(photos, out)
    done = out / ".work" / "chunks"
    deadline = time.monotonic() + 120
    while len(list(done.glob("*.parquet"))) < chunks:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("chunks", [(1, 4), pytest.param((0, 1, 3, 4, 6), marks=pytest.mark.slow)])
def test_a_build_that_was_killed_gives_the_same_bytes(patterns: Path, tmp_path: Path, chunks: tuple[int, ...]) -> None:
    whole = _start(patterns, tmp_path / "whole")
    rng = random.Random(0)
    for count in chunks:
        _kill_after(count, patterns, tmp_path / "out", delay=rng.uniform(0, 0.1))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert _start(patterns, tmp_path / "out").wait() == 0
    assert whole.wait() == 0
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")
    assert not list(tmp_path.rglob(".*"))


def test_a_photo_that_kills_its_reader_is_listed(patterns: Path, tmp_path: Path) -> None:
    Image.new("RGB", (160, 160), "red").save(patterns / "01 poison.png")
    out = tmp_path / "out"
    assert _start(patterns, out).wait() == -signal.SIGKILL
    assert _start(patterns, out).wait() == 0
    assert '"origin": "01 poison.png", "rule": "crashed"' in (out / "rejected.jsonl").read_text()
    assert not (out / ".work").exists()


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_survives_poison(patterns: Path, tmp_path: Path) -> None:
    Image.new("RGB", (160, 160), "red").save(patterns / "01 poison.png")
    assert _start(patterns, tmp_path / "here").wait() == -signal.SIGKILL
    assert _start(patterns, tmp_path / "here").wait() == 0
    assert _start(patterns, tmp_path / "ray", "ray").wait() == 0
    assert _content(tmp_path / "ray") == _content(tmp_path / "here")
