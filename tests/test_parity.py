"""Numbers of the released code, by scripts/parity.py; see docs/parity.md."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures" / "parity"


def _script() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "parity.py"
    spec = importlib.util.spec_from_file_location("parity_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


PARITY = _script()
CASES = list(PARITY.cases(PARITY.Fixtures(FIXTURES)))
TEXTS = [case for case in CASES if case.name.startswith("text.")]
OTHERS = [case for case in CASES if case not in TEXTS]


@pytest.mark.parity
@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_equals_the_release(case) -> None:
    assert case.error() <= case.tolerance


@pytest.mark.parity
def test_every_text_of_the_release() -> None:
    assert len(TEXTS) == 80
    assert {case.name: case.error() for case in TEXTS if case.error() > 0} == {}


def test_further_generations_are_described_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = np.load(FIXTURES / "e2e_sd15.npz")["early"]
    np.savez(tmp_path / "e2e_sd15.npz", santa=expected, wrong=expected + 1, unheard=expected)
    early = PARITY.GENERATIONS["early"]
    (tmp_path / "cases.json").write_text(json.dumps({"e2e_sd15.npz": {"santa": early, "wrong": early}}))
    assert PARITY.main(["--fixtures", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok   e2e_sd15.santa")
    assert lines[1].startswith("FAIL e2e_sd15.wrong")
    assert "describe it in cases.json" in lines[2]
    assert lines[3] == "1 passed, 2 failed"


def test_any_subset_of_the_files_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(FIXTURES / "masks.npz", tmp_path)
    assert PARITY.main(["--fixtures", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "15 passed, 0 failed"


def test_a_folder_without_fixtures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert PARITY.main(["--fixtures", str(tmp_path)]) == 2
    assert "no fixtures" in capsys.readouterr().err
