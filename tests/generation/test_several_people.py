"""Several people in one picture, on the tiny pipeline: alone each is the plain call, together nobody sees the other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_controlnet, tiny_sdxl

from consistentid.errors import InvalidSettings, PromptRefused
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.callbacks import StepReport
from consistentid.generation.donors import Donors
from consistentid.generation.explain import explain
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.in_place import put_into
from consistentid.generation.jobs import read_jobs, run_jobs
from consistentid.generation.n_best import n_best
from consistentid.generation.portrait import read_settings
from consistentid.generation.reproduce import reproduce
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

PROMPT = "a portrait of a person"
PHOTOS = Path(__file__).parents[2] / "examples/photos"
MAN, WOMAN = PHOTOS / "official-man.jpg", PHOTOS / "synthetic-woman.jpg"
TILES = {"size": (128, 64), "places": ("0,0,0.5,1", "0.5,0,1,1")}


def latents(generator: PortraitGenerator, face: Any, prompt: str = PROMPT, **options: Any) -> torch.Tensor:
    made = generator.generate(face, prompt, output_type="latent", **{"steps": 4, **options})
    return torch.stack([portrait.latents for portrait in made])


@pytest.mark.parametrize("settings", [{}, {"size": (96, 72)}, {"guidance": 1.0, "scheduler": "heun"}])
@pytest.mark.parametrize("task", ["text-to-image", "img2img", "inpaint", "controlnet"])
def test_one_person_everywhere_is_the_plain_call(
    generator: PortraitGenerator, drawn: FaceAnalysis, task: str, settings: dict[str, Any]
) -> None:
    picture = Image.effect_noise((64, 64), 80).convert("RGB")
    inputs = {"img2img": {"image": picture}, "inpaint": {"mask_image": "face"}, "controlnet": {"image": picture}}
    components = {"controlnet": tiny_controlnet(generator.pipeline.unet)} if task == "controlnet" else {}
    asked = {"task": task, "inputs": inputs.get(task, {}), "components": components, "steps": 3, **settings}
    plain = generator.generate(drawn, PROMPT, **asked)[0]
    placed = generator.generate(drawn, PROMPT, places=["0,0,1,1"], **asked)[0]
    assert np.array_equal(np.asarray(plain.image), np.asarray(placed.image))
    assert placed.settings.places == ("0,0,1,1",)
    assert not generator.pipeline.unet._forward_hooks
    assert not generator.pipeline.unet._forward_pre_hooks


def test_sdxl(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis) -> None:
    pipeline, adapter = tiny_sdxl(generator.pipeline)
    large = PortraitGenerator(pipeline, adapter, analyzer=None)
    plain = latents(large, drawn, size=(128, 64))
    assert torch.equal(latents(large, drawn, size=(128, 64), places=["0,0,1,1"]), plain)
    both = latents(large, drawn, donors=Donors(beside=(other,)), **TILES, clauses=["a man", "a woman"])
    assert both.shape == plain.shape
    assert torch.isfinite(both).all()


def test_nobody_sees_the_other_across_tiles(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis
) -> None:
    """Whoever is beside, what lies in one window alone stays as it is: no identity leaks through the network."""
    layout = generator.prepare(
        GenerationRequest(drawn, PROMPT, GenerationSettings.of(**TILES), donors=Donors(beside=(other,)))
    ).layout
    assert (layout.window, layout.corners) == ((8, 9), ((0, 0), (0, 7)))
    first, second = (
        latents(generator, drawn, donors=Donors(beside=(one,)), steps=1, **TILES) for one in (other, drawn)
    )
    assert torch.equal(first[..., :7], second[..., :7])
    assert not torch.equal(first[..., 9:], second[..., 9:])
    swapped = latents(generator, other, donors=Donors(beside=(drawn,)), steps=1, **TILES)
    assert torch.equal(swapped[..., 9:], second[..., 9:])


def test_everybody_has_words_of_their_own(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis
) -> None:
    asked = {"donors": Donors(beside=(other,)), **TILES}
    made = generator.generate(drawn, "a portrait of {person}", clauses=["a man", "a woman"], steps=1, **asked)[0]
    first, second = made.settings.facial_prompt.split(" | ")
    assert first.startswith("a portrait of a man, ")
    assert second.startswith("a portrait of a woman, ")
    assert made.settings.regions_used == ("face", "ears", "eyes", "nose", "mouth") * 2
    spelt_out = latents(generator, drawn, PROMPT, clauses=["a man", "a man"], **asked)
    assert torch.equal(spelt_out, latents(generator, drawn, f"{PROMPT}, a man", **asked))
    assert not torch.equal(spelt_out, latents(generator, drawn, PROMPT, clauses=["a man", "a woman"], **asked))
    with pytest.raises(PromptRefused, match="joins a minor"):
        generator.generate(drawn, "a portrait of {person}", clauses=["a naked man", "a child"], **asked)


def test_batches_and_seeds(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis) -> None:
    reports: list[StepReport] = []
    asked = {"donors": Donors(beside=(other,)), "num_images": 3, **TILES}
    together = latents(generator, drawn, batch_size=3, callback=reports.append, **asked)
    assert {(report.latents.shape, report.predicted().shape) for report in reports[-1:]} == {((3, 4, 8, 16),) * 2}
    assert torch.equal(reports[-1].latents, together)
    apart = latents(generator, drawn, batch_size=1, **asked)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert torch.equal(
        latents(generator, drawn, donors=Donors(beside=(other,)), seed=2, batch_size=1, **TILES), apart[2:]
    )
    mixed = generator.generate_batch(
        [
            GenerationRequest(drawn, PROMPT, GenerationSettings.of(steps=4, size=(128, 64))),
            GenerationRequest(drawn, PROMPT, GenerationSettings.of(steps=4, **TILES), donors=Donors(beside=(other,))),
        ],
        output_type="latent",
    )
    assert torch.equal(mixed[1][0].latents, apart[0])


def test_controls_hold_for_everybody(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis) -> None:
    """Somebody whose regions and identity are off could be anybody, in both places."""
    off = dict.fromkeys(("face", "ears", "eyes", "nose", "mouth", "identity"), 0.0)
    found = [latents(generator, drawn, donors=Donors(beside=(one,)), weights=off, **TILES) for one in (other, drawn)]
    assert torch.equal(*found)


@pytest.mark.parametrize("task", ["img2img", "inpaint", "controlnet"])
def test_other_tasks(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, task: str) -> None:
    picture = Image.effect_noise((128, 64), 80).convert("RGB")
    components = {"controlnet": tiny_controlnet(generator.pipeline.unet)} if task == "controlnet" else {}
    inputs = {"image": picture, **({"mask_image": Image.new("L", (128, 64), 255)} if task == "inpaint" else {})}
    asked = {"task": task, "inputs": inputs, "components": components, **TILES}
    first, second = (latents(generator, drawn, donors=Donors(beside=(one,)), **asked) for one in (other, drawn))
    assert first.shape == (1, 4, 8, 16)
    assert not torch.equal(first, second)


def test_the_record_makes_it_again(generator: PortraitGenerator, drawn: FaceAnalysis, tmp_path: Path) -> None:
    first = generator.generate(MAN, PROMPT, donors=Donors({"eyes": WOMAN}, beside=(WOMAN, drawn)), steps=2)[0]
    record = read_settings(first.save(tmp_path / "portrait.png"))
    assert record.size == (3 * 64 - 2 * 8, 64)
    assert record.places == ("0,0,0.333333,1", "0.333333,0,0.666667,1", "0.666667,0,1,1")
    assert [one.role for one in record.donors] == ["eyes", "beside", "beside"]
    again = reproduce(generator, record, donors=Donors(beside=(WOMAN, drawn)))
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))


def test_jobs(generator: PortraitGenerator, tmp_path: Path) -> None:
    common = {"photo": str(MAN), "prompt": PROMPT, "steps": 1, "beside": [str(WOMAN)]}
    lines = [
        common | {"name": "side"},
        common | {"name": "boxes", "size": [128, 64], "places": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]},
        common | {"name": "mask", "size": [128, 64], "places": ["left.png", "0.5,0,1,1"]},
        common | {"name": "bad", "size": [128, 64], "places": [[0, 0, 0.6, 1], [0.5, 0, 1, 1]]},
    ]
    file = tmp_path / "jobs.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    Image.fromarray(np.repeat([[255, 0]], 64, axis=1).repeat(64, axis=0).astype(np.uint8)).save(tmp_path / "left.png")
    jobs, _ = read_jobs(file)
    first = run_jobs(generator, jobs, out=tmp_path / "out", photos=tmp_path)
    assert first.done == ["side", "boxes", "mask"]
    same = [np.asarray(Image.open(tmp_path / "out" / f"{name}.png")) for name in ("boxes", "mask")]
    assert np.array_equal(*same)
    assert [bad.reason for bad in first.bad] == ["places 1 and 2 overlap; move one of them"]
    assert run_jobs(generator, jobs[:3], out=tmp_path / "out", photos=tmp_path).skipped == first.done
    moved = [jobs[1].model_copy(update={"places": ("0,0,0.45,1", "0.5,0,1,1"), "size": (160, 64)})]
    assert run_jobs(generator, moved, out=tmp_path / "out", photos=tmp_path).done == ["boxes"]


def test_refusals(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis) -> None:
    beside = Donors(beside=(other,))
    for settings, message in (
        ({"size": (64, 64)}, "place 1 is 32 x 64 px, the model needs 48 px each way"),
        ({"clauses": ["a man"]}, "clauses given: 1, people: 2"),
        ({"caption": "one face"}, "a caption describes one face"),
        ({"places": ["0,0,1,1"]}, "places given: 1, people: 2"),
    ):
        with pytest.raises(InvalidSettings, match=message):
            generator.generate(drawn, PROMPT, donors=beside, **settings)
    with pytest.raises(InvalidSettings, match="equally many tokens"):
        generator.generate(drawn, PROMPT, donors=Donors(same=(drawn,), beside=(other,)), combine="concatenate")
    request = GenerationRequest(drawn, PROMPT, donors=beside)
    with pytest.raises(InvalidSettings, match="the best of many is for one person"):
        n_best(generator, request, candidates=2)
    with pytest.raises(InvalidSettings, match="an explanation is for one person"):
        explain(generator, request)
    with pytest.raises(InvalidSettings, match="a place in an existing picture is for one person"):
        put_into(generator, request, MAN)
