"""Which ArcFace backend is asked, and what UniFace says without its networks; neither package can be installed here."""

import sys
from enum import Enum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from consistentid.errors import WeightsNotFound
from consistentid.faces.arcface import InsightFaceDetector, UnifaceDetector, arcface_detector
from consistentid.faces.packs import insightface_root

NETWORKS = ("retinaface_mnet_v2.onnx", "arcface_resnet.onnx")
PHOTO = np.zeros((8, 8, 3), np.uint8)


def install(monkeypatch: pytest.MonkeyPatch, *names: str, **contents: object) -> None:
    """Make packages importable, with some contents in the last."""
    for name in names:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    vars(sys.modules[names[-1]]).update(contents)


@pytest.fixture
def uniface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The package, with no networks yet; what is loaded, by name."""
    loaded: list[str] = []

    class Network:
        def __init__(self, *, model_name: Enum, providers: list[str]) -> None:
            loaded.append(model_name.value)

        def detect(self, photo: np.ndarray) -> list[object]:
            return []

    weights = {
        "RetinaFaceWeights": Enum("RetinaFaceWeights", {"MNET_V2": "retinaface_mnet_v2"}),
        "ArcFaceWeights": Enum("ArcFaceWeights", {"RESNET": "arcface_resnet"}),
    }
    install(monkeypatch, "uniface", "uniface.constants", **weights)
    install(monkeypatch, "uniface.detection", RetinaFace=Network)
    install(monkeypatch, "uniface.recognition", ArcFace=Network)
    monkeypatch.setenv("UNIFACE_CACHE_DIR", str(tmp_path))
    return loaded


def names() -> list[str]:
    ladder = arcface_detector(channel_order="rgb", offline=True)
    assert {detector.channel_order for detector in ladder.detectors} == {"rgb"}
    assert all(detector.offline for detector in ladder.detectors)
    return [detector.name for detector in ladder.detectors]


def test_uniface_is_asked_second_when_it_is_ready(
    uniface: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names() == ["uniface"], "InsightFace is not installed"
    install(monkeypatch, "insightface")
    assert names() == ["insightface"], "UniFace's networks are not there, and a retry downloads nothing"
    for name in NETWORKS:
        (tmp_path / name).touch()
    assert names() == ["insightface", "uniface"]


def test_without_both_insightface_is_named() -> None:
    if "insightface" in sys.modules:
        pytest.skip("insightface is installed")
    with pytest.raises(WeightsNotFound, match=r"insightface cannot be imported .*consistentid\[faces\]"):
        arcface_detector(channel_order="bgr", offline=True).detect(PHOTO)


def test_uniface_stays_offline(uniface: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NETWORKS[0]).touch()
    with pytest.raises(WeightsNotFound, match=r"UniFace lacks arcface_resnet\.onnx in .*; copy them there, or run"):
        UnifaceDetector(offline=True).detect(PHOTO)
    assert uniface == []
    assert UnifaceDetector().detect(PHOTO) == []
    assert uniface == ["retinaface_mnet_v2", "arcface_resnet"]
    assert caplog.messages == ["downloading UniFace's arcface_resnet.onnx; size and licence: github.com/yakhyo/uniface"]


def test_one_variable_says_where_packs_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSIGHTFACE_ROOT", str(tmp_path))
    assert InsightFaceDetector().root == insightface_root() == tmp_path
    monkeypatch.delenv("INSIGHTFACE_ROOT")
    assert InsightFaceDetector().root == Path("~/.insightface").expanduser()
