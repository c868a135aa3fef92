"""Photos of others: parts, blends, morphs, and their records, on the tiny pipeline."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TASKS, tiny_controlnet

from consistentid.errors import InvalidSettings, NotReproducible
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.donors import Donors, photos_of
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.jobs import read_jobs, run_jobs
from consistentid.generation.morph import morph, save_strip
from consistentid.generation.portrait import read_settings
from consistentid.generation.presets import PRESETS
from consistentid.generation.reproduce import reproduce
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings, PortraitSettings
from consistentid.identity.region_places import Box, places_of

PROMPT = "a portrait of a person"
PHOTOS = Path(__file__).parents[2] / "examples/photos"
MAN, WOMAN = PHOTOS / "official-man.jpg", PHOTOS / "synthetic-woman.jpg"


def latents(generator: PortraitGenerator, face: Any, donors: Donors | None = None, **settings: Any) -> torch.Tensor:
    made = generator.generate(face, PROMPT, donors=donors, output_type="latent", steps=4, **settings)
    return made[0].latents


def test_who_gives_what(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis) -> None:
    plain, second = latents(generator, drawn), latents(generator, other)
    everything = dict.fromkeys(("face", "ears", "eyes", "nose", "mouth", "identity"), other)
    assert torch.equal(latents(generator, drawn, Donors(everything)), second)
    assert torch.equal(latents(generator, drawn, Donors(blend=other), blend=0.0), plain)
    assert torch.equal(latents(generator, drawn, Donors(blend=other), blend=1.0), second)
    half = latents(generator, drawn, Donors(blend=other))
    assert torch.equal(half, latents(generator, drawn, Donors(blend=other), blend=0.5))
    found = [plain, second, half, latents(generator, drawn, Donors({"eyes": other}))]
    assert len({tuple(each.flatten().tolist()) for each in found}) == 4


def test_a_givers_identity_acts_in_the_place_of_the_region(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, donors = generator.adapter.config.base, Donors({"eyes": other, "mouth": drawn})

    def placed(*boxes: Box, **settings: Any) -> torch.Tensor:
        monkeypatch.setitem(PRESETS, base, replace(PRESETS[base], region_places={"eyes": boxes} if boxes else {}))
        return latents(generator, drawn, donors, **settings)

    nowhere = placed()
    above, below = ((placed(box) - nowhere).abs().mean((0, 2)) for box in ((0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)))
    half = len(above) // 2
    assert above[:half].mean() > below[:half].mean() > 0
    assert below[half:].mean() > above[half:].mean() > 0
    off = {"eyes": 0.0}
    assert torch.equal(placed((0.0, 0.0, 1.0, 1.0), weights=off), placed(weights=off))
    assert torch.equal(latents(generator, drawn), latents(generator, drawn, Donors({"eyes": drawn})))


@pytest.mark.parametrize("task", TASKS)
def test_photos_of_others_act_in_every_task(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    base = generator.adapter.config.base
    monkeypatch.setitem(PRESETS, base, replace(PRESETS[base], region_places={"eyes": ((0.0, 0.0, 1.0, 0.5),)}))
    components = {"controlnet": tiny_controlnet(generator.pipeline.unet)} if task == "controlnet" else {}
    given: dict[str, Any] = {"task": task, "inputs": TASKS[task], "components": components, "merge_step": -1}
    plain, second = latents(generator, drawn, **given), latents(generator, other, **given)
    assert torch.equal(latents(generator, drawn, Donors(blend=other), blend=1.0, **given), second)
    assert torch.equal(latents(generator, drawn, Donors(same=(drawn,)), **given), plain)
    again = replace(drawn, identity_embedding=drawn.identity_embedding + 0.02)
    for donors in (Donors({"eyes": other}), Donors({"identity": other}), Donors(blend=other), Donors(same=(again,))):
        assert not torch.equal(latents(generator, drawn, donors, **given), plain), next(iter(donors.by_role()))[0]


def test_a_giver_acts_where_a_given_picture_shows_the_region(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, framed = generator.adapter.config.base, {"nose": ((0.1, 0.1, 0.2, 0.2),)}
    monkeypatch.setitem(PRESETS, base, replace(PRESETS[base], region_places=framed))

    def places(task: str, **inputs: Any) -> Any:
        request = GenerationRequest(drawn, PROMPT, task=task, inputs=inputs, donors=Donors({"nose": other}))
        return generator.prepare(request).giver_places

    assert places("text-to-image") == framed
    assert places("img2img", image=MAN) == places_of(generator.analysed(MAN).analysis.label_map)
    moved = replace(drawn, label_map=np.roll(drawn.label_map, 16, axis=1))
    here, there = (places("inpaint", mask_image="face", image=one)["nose"][0] for one in (drawn, moved))
    assert there[0] == pytest.approx(here[0] + 16 / drawn.label_map.shape[1])
    assert there[1] == here[1]
    assert places("inpaint", mask_image=Image.new("L", (64, 64), 255), image=MAN, padding_mask_crop=8) == {}
    assert places("img2img", image=torch.zeros(1, 3, 64, 64)) == {}, "what cannot be looked at has no places"
    assert set(places("inpaint", mask_image="face")) == set(drawn.region_masks), "the photo itself is repainted"


def test_a_giver_acts_beside_others_too(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a batch may have different numbers of givers; whoever has none is drawn as before."""
    base = generator.adapter.config.base
    monkeypatch.setitem(PRESETS, base, replace(PRESETS[base], region_places={"eyes": ((0.0, 0.0, 1.0, 0.5),)}))
    asked = GenerationSettings.of(steps=4)
    requests = [GenerationRequest(drawn, PROMPT, asked, donors=one) for one in (Donors(), Donors({"eyes": other}))]
    together, apart = (generator.generate_batch(requests, output_type="latent", batch_size=size) for size in (2, 1))
    assert together[0][0].settings.batch_size == 2
    for one, two in zip(together, apart, strict=True):
        torch.testing.assert_close(one[0].latents, two[0].latents, rtol=1e-4, atol=1e-4)
    assert not torch.equal(together[0][0].latents, together[1][0].latents)


def test_mixtures_share_a_batch(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis) -> None:
    asked = GenerationSettings.of(steps=4)
    requests = [
        GenerationRequest(drawn, PROMPT, asked, donors=donors)
        for donors in (Donors({"nose": other}), Donors(blend=other), Donors())
    ]
    together, apart = (generator.generate_batch(requests, output_type="latent", batch_size=size) for size in (3, 1))
    assert {portraits[0].settings.batch_size for portraits in together} == {3}
    for one, two in zip(together, apart, strict=True):
        torch.testing.assert_close(one[0].latents, two[0].latents, rtol=1e-4, atol=1e-4)


def test_the_record_names_the_photos_and_makes_it_again(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, tmp_path: Path
) -> None:
    donors = Donors({"identity": MAN, "eyes": other}, WOMAN)
    first = generator.generate(drawn, PROMPT, donors=donors, blend=0.25, steps=2)[0]
    record = read_settings(first.save(tmp_path / "portrait.png"))
    assert [(one.role, one.photo) for one in record.donors] == [
        ("eyes", None), ("identity", str(MAN.resolve())), ("blend", str(WOMAN.resolve())),
    ]  # fmt: skip
    assert record.donor_photos == photos_of(donors)
    again = reproduce(generator, record, photo=drawn, donors=Donors({"eyes": other}))
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    with pytest.raises(NotReproducible, match="from a photo in memory"):
        reproduce(generator, record, photo=drawn)
    with pytest.raises(NotReproducible, match="is not the photo the portrait was made from"):
        reproduce(generator, record, photo=drawn, donors=Donors({"eyes": drawn}))


def test_a_morph(generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, tmp_path: Path) -> None:
    request = GenerationRequest(drawn, PROMPT, GenerationSettings.of(steps=2, seed=3), donors=Donors(blend=other))
    portraits = morph(generator, request, count=3, batch_size=3)
    assert [(portrait.settings.blend, portrait.settings.seed) for portrait in portraits] == [(0, 3), (0.5, 3), (1, 3)]
    save_strip(portraits, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.size == (3 * 64, 64)
        assert np.array_equal(np.asarray(strip)[:, 64:128], np.asarray(portraits[1].image))
    for wrong in (replace(request, donors=Donors()), replace(request, settings=GenerationSettings.of(num_images=2))):
        with pytest.raises(InvalidSettings, match="a morph"):
            morph(generator, wrong)


def test_jobs(generator: PortraitGenerator, tmp_path: Path) -> None:
    job = {"photo": str(MAN), "prompt": PROMPT, "steps": 1}
    lines = [
        job | {"name": "eyes", "parts": {"eyes": str(WOMAN)}},
        job | {"name": "half", "blend_with": str(WOMAN), "blend": 0.4},
        job | {"name": "bad", "parts": {"hair": str(WOMAN)}},
    ]
    file = tmp_path / "jobs.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    jobs, _ = read_jobs(file)
    first = run_jobs(generator, jobs, out=tmp_path / "out", photos=tmp_path)
    assert first.done == ["eyes", "half"]
    assert [bad.reason for bad in first.bad] == [
        "unknown region 'hair'; choose from face, ears, eyes, nose, mouth, identity"
    ]
    assert run_jobs(generator, jobs, out=tmp_path / "out", photos=tmp_path).skipped == ["eyes", "half"]
    changed = [jobs[0].model_copy(update={"parts": {"eyes": str(MAN)}})]
    assert run_jobs(generator, changed, out=tmp_path / "out", photos=tmp_path).done == ["eyes"]


def near(face: FaceAnalysis, amount: float) -> FaceAnalysis:
    """Another photo of the same person."""
    return replace(face, identity_embedding=face.identity_embedding + np.float32(amount / np.sqrt(128)))


def test_several_photos(generator: PortraitGenerator, drawn: FaceAnalysis, tmp_path: Path) -> None:
    donors = Donors(same=(near(drawn, 0.2), near(drawn, 0.3)))
    found = {how: latents(generator, drawn, donors, combine=how) for how in ("average", "concatenate")}
    assert not torch.equal(found["average"], found["concatenate"])
    assert not torch.equal(found["average"], latents(generator, drawn))
    twice = latents(generator, drawn, Donors(same=(drawn,)), combine="concatenate")
    torch.testing.assert_close(twice, latents(generator, drawn), rtol=1e-4, atol=1e-4)
    first = generator.generate(drawn, PROMPT, donors=donors, combine="best", steps=2)[0]
    record = read_settings(first.save(tmp_path / "portrait.png"))
    assert [one.role for one in record.donors] == ["same", "same"]
    again = reproduce(generator, record, photo=drawn, donors=donors)
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))


def test_a_stranger_among_several_photos_has_no_effect(
    generator: PortraitGenerator, drawn: FaceAnalysis, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = latents(generator, drawn, Donors(same=(near(drawn, 2.0),)))
    assert torch.equal(stranger, latents(generator, drawn))
    assert caplog.messages == ["photo 2 shows someone else than the other photos and is left out"]


def test_the_record_says_who_was_left_out(
    generator: PortraitGenerator, drawn: FaceAnalysis, other: FaceAnalysis, tmp_path: Path
) -> None:
    far = near(drawn, 2.0)
    donors = Donors({"eyes": other}, same=(near(drawn, 0.1), far, near(drawn, 0.2)), beside=(other,))
    first = generator.generate(drawn, PROMPT, donors=donors, steps=1)[0]
    record = read_settings(first.save(tmp_path / "portrait.png"))
    assert record.left_out == (2,), "the second of `same`"
    assert json.loads(record.model_dump_json())["left_out"] == [2]
    assert "left_out" not in record.public(texts=True), "nor anything else of the photos"
    again = reproduce(generator, record.model_copy(update={"left_out": ()}), photo=drawn, donors=donors)
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image)), "it is found out again"
    assert again.settings.left_out == (2,)
    own = generator.generate(far, PROMPT, donors=Donors(same=(drawn, near(drawn, 0.1))), steps=1)[0]
    assert own.settings.left_out == (0,), "the photo itself"
    assert generator.generate(drawn, PROMPT, steps=1)[0].settings.left_out == ()


def test_records_of_before_are_read(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    old = generator.generate(drawn, PROMPT, steps=1)[0].settings.model_dump(mode="json")
    del old["left_out"]
    assert PortraitSettings.model_validate(old).left_out == ()


def test_people_with_many_identity_tokens_do_not_share_a_batch(
    generator: PortraitGenerator, drawn: FaceAnalysis
) -> None:
    asked = GenerationSettings.of(steps=1, combine="concatenate")
    requests = [GenerationRequest(drawn, PROMPT, asked, donors=Donors(same=same)) for same in ((), (near(drawn, 0.1),))]
    made = generator.generate_batch(requests, output_type="latent", batch_size=2)
    assert [portraits[0].settings.batch_size for portraits in made] == [1, 1]


def test_impossible_requests(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    hidden = replace(drawn, label_map=np.where(np.isin(drawn.label_map, (7, 8)), 17, drawn.label_map).astype(np.uint8))
    for donors, settings, message in (
        (Donors({"ears": hidden}), {}, "the photo that shall give ears does not show it"),
        (Donors({"chin": drawn}), {}, "unknown region 'chin'"),
        (Donors(), {"blend": 0.5}, "blend is the share of a second person"),
        (Donors(blend=drawn), {"combine": "concatenate"}, "side by side have no shares"),
        (Donors(blend=drawn), {"blend": 1.5}, "blend: Input should be less than or equal to 1"),
    ):
        with pytest.raises(InvalidSettings, match=message):
            latents(generator, drawn, donors, **settings)
