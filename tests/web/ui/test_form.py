"""Controls -> request -> controls."""

from dataclasses import replace

import pytest

from consistentid.errors import InvalidSettings
from consistentid.faces.regions import REGION_NAMES
from consistentid.web.ui.form import Form
from consistentid.web.ui.presets import presets

USUAL = Form()
PROMPT = "a portrait photo of a person"


def test_the_usual_form_asks_for_nothing_special() -> None:
    request = replace(USUAL, prompt=PROMPT, caption="as found").request(usual=USUAL, found="as found", kept={})
    assert request.model_dump(exclude_unset=True) == {"prompt": PROMPT, "seed": 0, "num_images": 1}


def test_a_region_switched_off_and_a_weight_reach_the_request() -> None:
    weights = {**USUAL.weights, "eyes": 1.3, "mouth": 0.2}
    used = tuple(name for name in REGION_NAMES if name != "mouth")
    form = replace(USUAL, prompt=PROMPT, weights=weights, used=used, caption="a caption of mine")
    request = form.request(usual=USUAL, found="as found", kept={"scheduler": "ddim"})
    assert request.regions == used
    assert request.weights == {"eyes": 1.3}  # that of a region that is off says nothing
    assert (request.caption, request.scheduler) == ("a caption of mine", "ddim")


def test_words_and_times_reach_the_request_and_come_back() -> None:
    words, starts = {**USUAL.words, "mouth": " laughing "}, {**USUAL.starts, "eyes": "0,5", "nose": "0.2"}
    used = tuple(name for name in REGION_NAMES if name != "nose")
    form = replace(USUAL, prompt=PROMPT, words=words, starts=starts, ends={**USUAL.ends, "identity": "0.8"}, used=used)
    request = form.request(usual=USUAL, found=None, kept={})
    assert (request.words, request.starts, request.ends) == ({"mouth": "laughing"}, {"eyes": 0.5}, {"identity": 0.8})
    restored, kept = USUAL.restored(request.prompt, request.settings)
    assert (restored.words["mouth"], restored.starts["eyes"], restored.ends["identity"]) == ("laughing", "0.5", "0.8")
    assert kept == {}


def test_what_a_request_says_comes_back_into_the_form() -> None:
    form = replace(USUAL, prompt=PROMPT, weights={**USUAL.weights, "nose": 0.5}, steps=12, text_share=0.25, seed=7)
    request = form.request(usual=USUAL, found=None, kept={"clip_skip": 1})
    restored, kept = USUAL.restored(request.prompt, request.settings)
    assert restored == form
    assert kept == {"clip_skip": 1}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": " "}, "say in a few words"),
        ({"used": (), "weights": {**USUAL.weights, "identity": 0}}, "switched off"),
        ({"guidance": 200}, "guidance"),
        ({"starts": {"eyes": "half"}}, "numbers from 0 to 1"),
        ({"starts": {"eyes": "0.5"}, "ends": {"eyes": "0.4"}}, "eyes must end after it starts"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(changes: dict[str, object], sentence: str) -> None:
    form = replace(replace(USUAL, prompt=PROMPT), **changes)  # type: ignore[arg-type]
    with pytest.raises(InvalidSettings, match=sentence):
        form.request(usual=USUAL, found=None, kept={})


def test_every_preset_has_its_picture() -> None:
    assert all(preset.path.is_file() and preset.prompt for preset in presets())
