"""Weights, times and words of regions in every task, on the tiny pipeline."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TASKS, tiny_controlnet

from consistentid.errors import InvalidSettings, PromptRefused
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.detection import DetectedFace
from consistentid.faces.parsing import FaceParser
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import read_settings
from consistentid.generation.reproduce import reproduce
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

PROMPT = "a portrait of a person"
PHOTOS = Path(__file__).parents[2] / "examples/photos"
MAN, WOMAN = PHOTOS / "official-man.jpg", PHOTOS / "synthetic-woman.jpg"
OFF = dict.fromkeys(REGION_NAMES, 0.0)


def latents(generator: PortraitGenerator, face: FaceAnalysis, **settings: Any) -> torch.Tensor:
    given = {"steps": 5, "merge_step": 1, **settings}
    return generator.generate(face, PROMPT, output_type="latent", **given)[0].latents


@pytest.mark.parametrize("task", TASKS)
def test_weights_act_in_every_task_and_1_is_the_plain_call(
    generator: PortraitGenerator, drawn: FaceAnalysis, task: str
) -> None:
    components = {"controlnet": tiny_controlnet(generator.pipeline.unet)} if task == "controlnet" else {}
    given = {"task": task, "inputs": TASKS[task], "components": components}
    plain = latents(generator, drawn, **given)
    ones = {
        "weights": {**dict.fromkeys(REGION_NAMES, 1.0), "identity": 1.0},
        "starts": {"identity": 0},
        "ends": {"eyes": 1},
    }
    assert torch.equal(plain, latents(generator, drawn, **given, **ones))
    for changed in (
        {"weights": {"eyes": 0.5}},
        {"weights": {"identity": 1.5}},
        {"starts": {"mouth": 0.0}},
        {"ends": {"mouth": 0.6}},
        {"starts": {"identity": 0.5}},
        {"words": {"eyes": "closed"}},
    ):
        assert not torch.equal(plain, latents(generator, drawn, **given, **changed)), changed
    assert torch.equal(latents(generator, drawn, **given, regions=()), latents(generator, drawn, **given, weights=OFF))


def test_identity_weight_0_is_nobody(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis) -> None:
    off = {"regions": (), "caption": "", "weights": {"identity": 0.0}}
    assert torch.equal(latents(generator, drawn, **off), latents(generator, other, **off))


def test_starting_after_the_merge_step_is_the_plain_call(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    scheduled = latents(generator, drawn, starts=dict.fromkeys(REGION_NAMES, 0.4), merge_step=-1)
    assert torch.equal(scheduled, latents(generator, drawn))


@pytest.mark.parametrize("scheduler", ["ddim", "heun"])
def test_each_image_of_a_batch_has_its_own_control(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, scheduler: str
) -> None:
    base = GenerationSettings.of(steps=5, merge_step=1, scheduler=scheduler)
    controls = (
        {"weights": {"eyes": 0.2, "identity": 0.5}, "starts": {"nose": 0.2}, "ends": {"nose": 0.6}},
        {"starts": {"identity": 0.4}, "ends": {"identity": 0.8}},
        {},
    )
    requests = [
        GenerationRequest(face, PROMPT, base.model_copy(update=control))
        for face, control in zip((drawn, other, drawn), controls, strict=True)
    ]
    together = generator.generate_batch(requests, output_type="latent", batch_size=3)
    apart = generator.generate_batch(requests, output_type="latent", batch_size=1)
    assert {portraits[0].settings.batch_size for portraits in together} == {3}
    for one, two in zip(together, apart, strict=True):
        torch.testing.assert_close(one[0].latents, two[0].latents, rtol=1e-4, atol=1e-4)


def test_the_record_makes_it_again(generator: PortraitGenerator, drawn: FaceAnalysis, tmp_path: Any) -> None:
    given = {"weights": {"nose": 1.3}, "ends": {"mouth": 0.9}, "words": {"eyes": "closed"}}
    first = generator.generate(drawn, PROMPT, steps=3, **given)[0]
    record = read_settings(first.save(tmp_path / "portrait.png"))
    assert record.weights == {"eyes": 0.25, "nose": 1.3}, "also what the words lowered"
    assert (record.ends, record.words) == (given["ends"], given["words"])
    assert "closed eyes" in record.facial_prompt
    again = reproduce(generator, record, photo=drawn)
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"hair": 1.0}}, "unknown region 'hair'; choose from face, .*, identity"),
        ({"weights": {"eyes": 1.6}}, "weights.eyes: Input should be less than or equal to 1.5"),
        ({"starts": {"chin": 0}}, "unknown region 'chin'"),
        ({"starts": {"eyes": 0.5}, "ends": {"eyes": 0.2}}, "eyes must end after it starts"),
        ({"words": {"identity": "kind"}}, "unknown region 'identity'; choose from face, .*, mouth$"),
        (
            {"weights": {"ears": 0.5}, "regions": ("eyes",)},
            "ears cannot be controlled: the setting regions leaves it out",
        ),
        (
            {"weights": {"ears": 0.5}, "caption": "green eyes"},
            "ears cannot be controlled: the caption does not name it",
        ),
    ],
)
def test_impossible_requests(
    generator: PortraitGenerator, drawn: FaceAnalysis, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSettings, match=message):
        generator.generate(drawn, PROMPT, steps=1, **settings)


def without_ears(face: FaceAnalysis) -> FaceAnalysis:
    """Under hair."""
    labels = np.where(np.isin(face.label_map, (7, 8)), 17, face.label_map).astype(np.uint8)
    return replace(face, label_map=labels)


def refusal(generator: PortraitGenerator, face: FaceAnalysis | Path, prompt: str = PROMPT, **options: Any) -> str:
    with pytest.raises(InvalidSettings) as refused:
        generator.generate(face, prompt, steps=1, **{"weights": {"ears": 0.5}, **options})
    return str(refused.value)


def test_whose_photo_does_not_show_a_region(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis
) -> None:
    hidden, both = without_ears(drawn), without_ears(other)
    said = "ears cannot be controlled: "
    assert refusal(generator, hidden) == f"{said}the photo shows no ears"
    for control in ({"starts": {"ears": 0.1}}, {"ends": {"ears": 0.9}}):
        assert refusal(generator, hidden, weights={}, **control) == f"{said}the photo shows no ears"
    assert refusal(generator, hidden, donors=Donors(blend=both)) == f"{said}no photo shows ears"
    beside = {"size": (128, 64), "places": ("0,0,0.5,1", "0.5,0,1,1")}
    assert (
        refusal(generator, drawn, donors=Donors(beside=(both,)), **beside)
        == f"{said}the photo of person 2 shows no ears"
    )
    assert (
        refusal(generator, hidden, donors=Donors(beside=(other,)), **beside)
        == f"{said}the photo of person 1 shows no ears"
    )
    for weights in ({"ears": 0.0}, {"eyes": 0.5}):
        assert generator.generate(hidden, PROMPT, steps=1, weights=weights)
    assert generator.generate(hidden, PROMPT, steps=1, weights={"ears": 0.5}, donors=Donors({"ears": drawn}))


def test_the_prompt_may_be_too_long_for_a_regions_word(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    said = refusal(generator, drawn, "portrait " * 80)
    assert said == "ears cannot be controlled: prompt and caption are so long that its word was cut off"


class EarsUnderHair:
    """A parser whose people all wear their hair over their ears."""

    def __init__(self, parser: FaceParser) -> None:
        self.parser = parser

    def parse(self, photo: np.ndarray, face: DetectedFace | None = None) -> np.ndarray:
        labels = self.parser.parse(photo, face)
        return np.where(np.isin(labels, (7, 8)), 17, labels).astype(np.uint8)


def test_the_photo_is_named_from_file_to_sentence(fresh_generator: PortraitGenerator) -> None:
    found = fresh_generator.analyzer
    assert found is not None
    found.parser = EarsUnderHair(found.parser)
    assert refusal(fresh_generator, MAN) == "ears cannot be controlled: official-man.jpg shows no ears"
    asked = {"weights": {}, "starts": {"ears": 0.2}}
    said = refusal(fresh_generator, MAN, donors=Donors(beside=(WOMAN,)), **asked)
    assert said == "ears cannot be controlled: official-man.jpg, the photo of person 1, shows no ears"


def test_the_policy_reads_the_words(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    with pytest.raises(PromptRefused):
        generator.generate(drawn, PROMPT, words={"face": "a naked face"})
