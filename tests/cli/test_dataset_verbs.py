"""Verbs that read a dataset."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]

_path = Path(__file__).parents[1] / "dataset" / "conftest.py"
_spec = importlib.util.spec_from_file_location("drawn_for_cli", _path)
assert _spec is not None
assert _spec.loader is not None
_drawn = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_drawn)
drawn_dataset = _drawn.drawn_dataset


@pytest.mark.parametrize("verb", ["inspect", "validate", "stats", "export"])
def test_every_verb_has_help(run: Run, verb: str) -> None:
    code, out, _ = run("dataset", verb, "--help")
    assert code == 0
    assert "FOLDER" in out
    assert verb in run("dataset", "--help")[1]


def test_inspect_shows_the_dataset_and_its_records(run: Run, drawn_dataset: Path, tmp_path: Path) -> None:
    code, out, _ = run("dataset", "inspect", drawn_dataset)
    assert code == 0
    assert "7 of 4 people" in out
    assert "3 of 10, 1 of them copies" in out
    code, out, _ = run("dataset", "inspect", drawn_dataset, "--index", "3", "--out", "picture.png")
    shown, _, path = out.rstrip().rpartition("\n")
    assert code == 0
    assert json.loads(shown)["person"] == "person-1"
    with Image.open(tmp_path / path) as picture:
        assert picture.size == (80, 60)
        assert picture.getpixel((28, 12)) != (200, 150, 120)  # the face is tinted


def test_stats_are_a_table_or_json(run: Run, drawn_dataset: Path) -> None:
    _, table, _ = run("dataset", "stats", drawn_dataset)
    assert ["licences: MIT", "2"] in [line.rsplit("  ", 1) for line in table.replace("   ", "").splitlines()]
    _, text, _ = run("dataset", "stats", drawn_dataset, "--json")
    assert json.loads(text)["regions"]["ears"] == 5


def test_validate_lists_problems_and_exits_with_1(run: Run, drawn_dataset: Path, tmp_path: Path) -> None:
    assert run("dataset", "validate", drawn_dataset)[:2] == (0, f"{drawn_dataset}: 7 records, no problems\n")
    broken = tmp_path / "broken"
    shutil.copytree(drawn_dataset, broken)
    (broken / "data" / "00001.parquet").unlink()
    code, out, _ = run("dataset", "validate", broken)
    assert code == 1
    assert out.splitlines() == ["data/00001.parquet: is missing", f"{broken}: 7 records, 1 problem"]


@pytest.mark.parametrize(("layout", "file"), [("release", "FGID.json"), ("webdataset", "00000.tar")])
def test_export_writes_a_new_folder(run: Run, drawn_dataset: Path, tmp_path: Path, layout: str, file: str) -> None:
    code, out, _ = run("dataset", "export", drawn_dataset, "out", "--format", layout)
    assert (code, out) == (0, "out\n")
    assert (tmp_path / "out" / file).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "{}", "--index", "7"], "there is no record 7"),
        (["inspect", "{}", "--out", "a.png"], "say which with --index"),
        (["inspect", "{}", "--index", "0", "--out", "a.jpg"], "saved as .png"),
        (["inspect", "nothing"], "no finished dataset"),
        (["validate", "nothing"], "no finished dataset"),
        (["stats", "nothing"], "no finished dataset"),
        (["export", "{}", ".", "--format", "release"], "exists; export into a new folder"),
    ],
)
def test_refusals_are_one_sentence(run: Run, drawn_dataset: Path, arguments: list[str], message: str) -> None:
    code, out, error = run("dataset", *(each.format(drawn_dataset) for each in arguments))
    assert code == 1
    assert message in error
    assert error.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize("arguments", [["inspect", "x"], ["validate", "x"], ["stats", "x"], ["build", "x", "y"]])
def test_a_missing_library_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr("consistentid.cli.dataset.find_spec", lambda name: None)
    code, _, error = run("dataset", *arguments)
    assert code == 1
    assert error == "consistentid: datasets need pyarrow, which is not installed: pip install 'consistentid[data]'\n"
