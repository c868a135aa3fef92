"""InsightFace packs as users unpack them."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from consistentid.errors import WeightsNotFound
from consistentid.faces.arcface import InsightFaceDetector
from consistentid.faces.packs import find_pack

NETWORKS = {"buffalo_l": ("det_10g.onnx", "w600k_r50.onnx"), "antelopev2": ("scrfd_10g_bnkps.onnx", "glintr100.onnx")}


def unpack(root: Path, pack: str, *, nested: bool) -> Path:
    folder = root / "models" / pack / (pack if nested else "")
    folder.mkdir(parents=True)
    for name in NETWORKS[pack]:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("pack", NETWORKS)
@pytest.mark.parametrize("nested", [False, True])
def test_a_pack_is_found_where_it_was_unpacked(tmp_path: Path, pack: str, nested: bool) -> None:
    folder = unpack(tmp_path, pack, nested=nested)
    found = find_pack(tmp_path, pack)
    assert (found.folder, found.nested, found.missing) == (folder, nested, ())
    assert found.name == (f"{pack}/{pack}" if nested else pack)
    (folder / NETWORKS[pack][1]).unlink()
    assert find_pack(tmp_path, pack).missing == ("recognition",)


def test_nothing_is_there(tmp_path: Path) -> None:
    found = find_pack(tmp_path, "buffalo_l")
    assert (found.nested, found.missing) == (False, ("detection", "recognition"))


@pytest.fixture
def insightface(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the package: what it is asked for, and how it fails without a detector."""
    asked: list[dict[str, Any]] = []

    class FaceAnalysis:
        def __init__(self, **arguments: Any) -> None:
            asked.append(arguments)
            folder = Path(arguments["root"]) / "models" / arguments["name"]
            assert list(folder.glob("*det_*.onnx")) + list(folder.glob("scrfd*.onnx"))

        def prepare(self, **_: Any) -> None: ...

        def get(self, photo: np.ndarray) -> list[Any]:
            return []

    package, app = ModuleType("insightface"), ModuleType("insightface.app")
    app.FaceAnalysis = FaceAnalysis  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setitem(sys.modules, "insightface.app", app)
    return asked


def test_a_nested_pack_is_used_in_its_place(tmp_path: Path, insightface: list[dict[str, Any]]) -> None:
    unpack(tmp_path, "antelopev2", nested=True)
    detector = InsightFaceDetector("antelopev2", root=tmp_path, offline=True)
    assert detector.detect(np.zeros((8, 8, 3), np.uint8)) == []
    assert insightface[0]["name"] == "antelopev2/antelopev2"


def test_a_pack_without_a_detector_is_named(
    tmp_path: Path, insightface: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    (unpack(tmp_path, "buffalo_l", nested=False) / "det_10g.onnx").unlink()
    photo = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(WeightsNotFound, match="holds no face detector; unpack buffalo_l"):
        InsightFaceDetector(root=tmp_path).detect(photo)
    with pytest.raises(WeightsNotFound, match="holds no face detector"):
        InsightFaceDetector(root=tmp_path / "empty").detect(photo)
    said = "downloading the face recogniser buffalo_l: 289 MB; licence: non-commercial research only"
    assert caplog.messages == [said]
    with pytest.raises(WeightsNotFound, match="no InsightFace pack in"):
        InsightFaceDetector(root=tmp_path / "other", offline=True).detect(photo)
