"""`consistentid doctor` finds what users stumble over, and says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from consistentid.cli.pitfalls import half_precision, insightface_packs, released_weights

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
    for part in ("buffalo_l", "antelopev2", "face parser", "image encoder", "downloads", "channel order", "float16"):
        assert part in out
