"""`consistentid dataset build`."""

import json
from pathlib import Path

import pytest

from consistentid.cli.app import main
from consistentid.dataset.shards import FGIDDataset


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["dataset", "build", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_a_photo_becomes_a_dataset(
    sample_photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"file": str(sample_photos["synthetic-woman"]), "age": 30}) + "\n")
    out = tmp_path / "out"
    assert _run(tmp_path / "list.jsonl", out, "--detector", "dlib hog", "--rules.min-face", "100") == 0
    assert "1 photos of 1 people" in capsys.readouterr().out
    assert FGIDDataset.open(out)[0].age == 30
    assert FGIDDataset.open(out).manifest.settings["rules"]["min_face"] == 100  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["one"], "name at least one source"),
        (["one", "two", "--workers", "2"], "add --ray"),
        (["none", "two"], "does not exist"),
        (["none", "two", "--detector", "eyes"], "no detector"),
    ],
)
def test_refusals(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(*arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "two" / ".work").exists()
