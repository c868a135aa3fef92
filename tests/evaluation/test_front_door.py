"""The command, on a tiny random model: whatever it draws, the report counts it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from consistentid.cli.app import main
from consistentid.images import load_photo

PROTOCOL = """
about: the smallest one
subjects: 3
prompts: {plain: {text: "a {person}"}}
blocks: {all: {methods: [full]}}
"""


@pytest.fixture(scope="module")
def config(root: Path, sample_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    spec = importlib.util.spec_from_file_location("tiny_for_evaluate", root / "tests/generation/tiny.py")
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    model = tiny.save_tiny_model(folder / "model")
    (folder / "people").mkdir()
    for path in sample_photos.values():
        load_photo(path).reduce(2).save(folder / "people" / f"{path.stem}.png")
    (folder / "protocol.yaml").write_text(PROTOCOL)
    path = folder / "config.yaml"
    path.write_text(
        json.dumps({
            "model": str(model), "photos": str(folder / "people"), "protocol": str(folder / "protocol.yaml"),
            "out": str(folder / "out"), "settings": {"steps": 2}, "recognisers": ["dlib"],
        })
    )  # fmt: skip
    return path


def run(*arguments: object) -> object:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_portraits_without_a_face_are_in_the_report(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", config) == 0
    out = config.parent / "out"
    assert capsys.readouterr().out.split() == [str(out / "report.md"), str(out / "report.html")]
    report = (out / "report.md").read_text()
    assert "2 portraits not measured: no face." in report
    assert "2 people have one photo only" in report
    scores = json.loads((out / "scores.json").read_text())
    found = [s for s in scores if (s["block"], s["method"], s["metric"]) == ("all", "full", "face found")]
    assert [(s["value"], s["pictures"]) for s in found] == [(0, 2)]
    assert all(s["value"] in (0, None) for s in scores if s["metric"] == "rank-1 dlib" and s["block"] == "all")
    assert run("evaluate", "compare", out, out) == 0
    assert "no difference told" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["embedded"], "--photos FOLDER"),
        (["embedded", "--protocol", "nonsense"], "choose from ablations, embedded"),
        (["embedded", "--photos", "nowhere"], "no folder"),
        (["embedded", "--subjects", "0"], "--subjects: Input should be greater than"),
        (["embedded", "--images", "x", "--ray", "1"], "--images draws nothing"),
        (["compare", "nowhere", "nowhere"], "no finished evaluation"),
    ],
)
def test_one_sentence_says_what_is_wrong(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", *arguments) == 1
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_ray_gives_the_same_table(config: Path, root: Path) -> None:
    """In a process of its own: Ray needs sockets, which tests may not open."""
    outs = [config.parent / name for name in ("here", "on-ray")]
    environment = {**os.environ, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "PYTHONPATH": str(root / "src")}
    for out, extra in zip(outs, ([], ["--ray", "1"]), strict=True):
        code = "import sys; from consistentid.cli.app import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "evaluate", str(config), "--out", str(out), *extra]
        subprocess.run(command, check=True, env=environment, timeout=300)
    assert (outs[0] / "scores.json").read_bytes() == (outs[1] / "scores.json").read_bytes()
