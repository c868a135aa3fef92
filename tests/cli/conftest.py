"""The command line runs in this process, on the tiny model of the generation tests."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from consistentid.cli.app import main

_path = Path(__file__).parents[1] / "generation" / "tiny.py"
_spec = importlib.util.spec_from_file_location("tiny_for_cli", _path)
assert _spec is not None
assert _spec.loader is not None
_tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tiny)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny.save_tiny_model(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Exit code, stdout and stderr of a command, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return call
