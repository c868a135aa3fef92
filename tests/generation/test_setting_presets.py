"""Settings by name and from files."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.settings import GenerationSettings, preset_settings

NAMES = json.loads(files("consistentid.generation").joinpath("setting_presets.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_runs(generator: PortraitGenerator, drawn: FaceAnalysis, name: str) -> None:
    settings = preset_settings(name)
    assert settings.model_fields_set == set(NAMES[name])
    few = settings.model_dump(exclude_unset=True) | {"size": (64, 64), "steps": min(settings.steps or 2, 8)}
    assert generator.generate(drawn, "a person", **few)[0].settings.scheduler == settings.scheduler


def test_the_release_demos_are_those_of_the_method() -> None:
    sd15, sdxl = preset_settings("sd15-demo"), preset_settings("sdxl-demo")
    assert (sd15.steps, sd15.merge_step, sd15.scheduler, sd15.size) == (50, 30, "euler", (512, 768))
    assert (sdxl.steps, sdxl.merge_step, sdxl.scheduler, sdxl.size) == (50, 30, "euler", (864, 1152))


def test_a_file_of_your_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"steps": 7, "size": [64, 96]}')
    assert preset_settings(path) == GenerationSettings(steps=7, size=(64, 96))
    for text, message in (
        ("{", "no JSON"),
        ("[]", "one JSON object"),
        ('{"sede": 1}', "sede"),
        ('{"steps": 0}', "steps"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidSettings, match=message):
            preset_settings(path)
    with pytest.raises(InvalidSettings, match="choose from sd15-demo"):
        preset_settings("nothing")
