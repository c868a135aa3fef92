"""`consistentid doctor` finds what users stumble over, and says what to do."""

import re
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from consistentid.cli.doctor import OPTIONAL, REQUIRED
from consistentid.cli.pitfalls import compiler, face_parser, half_precision, insightface_packs, released_weights
from consistentid.faces.arcface import InsightFaceDetector

Run = Callable[..., tuple[int, str, str]]


def test_packs_that_were_unpacked_wrongly(tmp_path: Path) -> None:
    deep = tmp_path / "models" / "antelopev2" / "antelopev2"
    short = tmp_path / "models" / "buffalo_l"
    for folder, names in ((deep, ("scrfd_10g_bnkps.onnx", "glintr100.onnx")), (short, ("det_10g.onnx",))):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    buffalo, antelope = insightface_packs(tmp_path)
    assert buffalo.advice == "no network for recognition: unpack buffalo_l.zip again"
    assert "one folder deeper" in antelope.found
    assert antelope.verdict == "ok"
    (short / "w600k_r50.onnx").touch()
    assert next(insightface_packs(tmp_path)).verdict == "ok"
    missing = next(insightface_packs(tmp_path / "empty"))
    assert (missing.verdict, "unpack InsightFace's buffalo_l.zip" in missing.advice) == ("optional", True)


def test_offline_variables_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def downloads() -> str:
        return next(finding.found for finding in released_weights() if finding.name == "downloads")

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert "allowed" in downloads()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "forbidden by HF_HUB_OFFLINE" in downloads()


def test_black_pictures_are_explained_where_float16_is_used() -> None:
    assert "black pictures are refused" in half_precision("cuda").found
    assert "not used on cpu" in half_precision("cpu").found


def test_the_report_names_every_pitfall(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code in {0, 1}
    for part in (
        "buffalo_l", "antelopev2", "face parser", "image encoder", "downloads", "channel order", "float16", "compiler",
        "several faces", "small faces",
    ):  # fmt: skip
        assert part in out


def test_the_tables_of_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}

    assert {*REQUIRED} == names(project["dependencies"])
    for extra in ("faces", "train", "weighting"):
        listed = {name for name, (where, _) in OPTIONAL.items() if where == extra}
        assert listed == names(project["optional-dependencies"][extra])


def test_a_parser_beside_an_adapter_is_seen(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consistentid.generation.sources.cached", lambda source: None)
    assert "--adapter PATH" in face_parser(None).advice
    assert face_parser(tmp_path).found == f"not in the hub's cache, nor in {tmp_path}"
    parser, adapter = tmp_path / "face_parsing.pth", tmp_path / "ConsistentID-v1.bin"
    parser.touch()
    adapter.touch()
    for place in (tmp_path, adapter):
        assert face_parser(place).found == str(parser)
    monkeypatch.setattr("consistentid.cli.doctor._FILE_WIDTH", 1000)
    assert str(parser) in run("doctor", "--adapter", tmp_path)[1]


def test_without_a_compiler_the_way_around_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("insightface"):
        pytest.skip("insightface is installed")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "pip install onnxruntime uniface" in compiler().advice
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert (compiler().found.partition(";")[0], compiler().verdict) == ("/bin/c++", "ok")


def test_packs_are_looked_for_where_generation_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHTFACE_ROOT", str(tmp_path))
    assert str(InsightFaceDetector().root) in next(released_weights()).found


def test_training_without_its_extra_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "consistentid.training.run", raising=False)
    code, _, said = run("train", "a.yaml")
    assert code == 1
    assert said == "consistentid: training needs pyyaml, not installed: pip install 'consistentid[data,train]'\n"
