"""Numbers of the released code, by scripts/parity.py; see docs/parity.md."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

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
    np.savez(tmp_path / "e2e_sd15.npz", santa=expected, unheard=expected)
    early = PARITY.GENERATIONS["early"]
    (tmp_path / "cases.json").write_text(json.dumps({"e2e_sd15.npz": {"santa": early}}))
    assert PARITY.main(["--fixtures", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok   e2e_sd15.santa")
    assert "describe it in cases.json" in lines[1]
    assert lines[2] == "1 passed, 1 failed"


def test_any_subset_of_the_files_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(FIXTURES / "masks.npz", tmp_path)
    assert PARITY.main(["--fixtures", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "15 passed, 0 failed"


def test_a_folder_without_fixtures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert PARITY.main(["--fixtures", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "no fixtures" in said.err
    assert said.out == "0 passed, 0 failed\n"


def test_what_goes_wrong_is_one_failed_case_and_the_totals_come_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = dict(np.load(FIXTURES / "masks.npz"))
    del masks["parsing"]
    np.savez(tmp_path / "masks.npz", Face=masks["Face"], Nose=masks["Nose"])
    (tmp_path / "modules.npz").write_bytes(b"no archive")
    expected = np.load(FIXTURES / "e2e_sd15.npz")["early"]
    np.savez(tmp_path / "e2e_sd15.npz", odd=expected, untold=expected)
    (tmp_path / "cases.json").write_text(json.dumps({"e2e_sd15.npz": {"odd": {"prompt": 3, "merge_step": 0}}}))
    (tmp_path / "text_cases.json").write_text('[{"prompt": "a man"}, "no case"]')
    assert PARITY.main(["--fixtures", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAIL modules.npz: InvalidData: modules.npz cannot be read")
    assert all("lacks `parsing`" in line for line in lines[1:3])
    assert lines[-1] == "0 passed, 7 failed"
    assert len(lines) == 8


def test_an_empty_caption_is_no_template(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Stop(Exception):
        pass

    def generate(self: object, *_: object, **options: object) -> None:
        asked.append(options["caption"])
        raise Stop

    monkeypatch.setattr(PARITY.PortraitGenerator, "generate", generate)
    monkeypatch.setattr(PARITY, "tiny_generator", lambda *_: PARITY.PortraitGenerator.__new__(PARITY.PortraitGenerator))
    for case in ({"prompt": "a man", "merge_step": 0, "caption": ""}, PARITY.GENERATIONS["early"]):
        with pytest.raises(Stop):
            PARITY._generation(PARITY.Fixtures(FIXTURES), "sd15", case, np.zeros(1))
    assert asked == ["", None]


@pytest.mark.parity
@torch.no_grad()
def test_the_loras_act_at_scale_zero_as_in_the_release() -> None:
    """The output is affine in the scale, so the release's number at 0.8 and ours at 1.6 give that at 0."""
    fixtures = PARITY.Fixtures(FIXTURES)
    released = fixtures.numbers("modules.npz")["attn.cross.scale0.8"]
    at_zero = 2 * released - np.asarray(PARITY._attention(fixtures, "cross.scale1.6"))
    assert PARITY._error(PARITY._attention(fixtures, "cross.scale0"), at_zero) < 1e-5
