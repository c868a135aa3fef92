"""Previews, scores, and the best of many candidates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from consistentid.errors import InvalidSettings, NoFaceFound
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.faces.detection import DlibDetector
from consistentid.generation.callbacks import StepReport
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.n_best import n_best
from consistentid.generation.preview import decoded
from consistentid.generation.reproduce import reproduce
from consistentid.generation.request import GenerationRequest
from consistentid.generation.scores import NO_FACE, asked_of, likeness, score
from consistentid.generation.settings import GenerationSettings

PROMPT = "a portrait of a person"
PHOTOS = Path(__file__).parents[2] / "examples/photos"
PHOTO, MAN = PHOTOS / "synthetic-woman.jpg", PHOTOS / "official-man.jpg"


@pytest.fixture(scope="module")
def embedded() -> PortraitGenerator:
    return PortraitGenerator.from_pretrained("embedded", cache=False)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_the_last_prediction_is_the_result(
    generator: PortraitGenerator, drawn: FaceAnalysis, scheduler: str, guidance: float
) -> None:
    predictions: list[torch.Tensor] = []

    def keep(step: StepReport) -> None:
        predictions.append(step.predicted())

    final = generator.generate(
        drawn, PROMPT, steps=4, scheduler=scheduler, guidance=guidance, callback=keep, output_type="latent"
    )[0].latents
    assert len(predictions) == 4
    torch.testing.assert_close(predictions[-1][0], final, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(predictions[0][0], final, atol=1e-2)
    assert decoded(generator.pipeline, predictions[0])[0].size == (64, 64)
    assert not generator.pipeline.unet._forward_hooks


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a portrait", {}),
        (
            "a laughing man with red hair, light blue background",
            {"expression": "smiling", "hair": "red", "background": "light blue"},
        ),
        ("a serious bald man", {"expression": "serious", "hair": "bald"}),
    ],
)
def test_what_a_prompt_asks_for(prompt: str, expected: dict[str, str]) -> None:
    assert asked_of(prompt) == expected


def test_scores_of_a_photo(embedded: PortraitGenerator) -> None:
    analyzer = embedded.analyzer
    assert analyzer is not None
    identity = analyzer.analyze(PHOTO).identity_embedding
    photo = Image.open(PHOTO).convert("RGB").resize((128, 128))
    found = score(photo, identity=identity, prompt="a smiling woman with black hair", analyzer=analyzer)
    assert found.identity > 0.95
    assert 0.5 <= found.adherence <= 1
    assert 0 < found.quality < 1
    assert found.total == pytest.approx(0.6 * found.identity + 0.2 * found.adherence + 0.2 * found.quality)
    assert likeness(photo, identity, detector=analyzer.detector) == pytest.approx(found.identity, abs=0.02)
    blank, quick = Image.new("RGB", (64, 64)), FaceAnalyzer(DlibDetector(), analyzer.parser, None)
    assert score(blank, identity=identity, prompt="", analyzer=quick) == NO_FACE
    assert likeness(blank, identity, detector=DlibDetector()) == 0


def test_the_best_of_many(embedded: PortraitGenerator) -> None:
    request = GenerationRequest(PHOTO, PROMPT, GenerationSettings.of(steps=10, seed=5, num_images=2))
    ranked = n_best(embedded, request, candidates=3)
    assert ranked[0].scores.total >= ranked[1].scores.total
    assert len(ranked) == 2
    best = ranked[0].portrait.settings
    assert (best.seed, best.num_images) == (5, 3)
    again = reproduce(embedded, best)
    assert np.array_equal(np.asarray(again.image), np.asarray(ranked[0].portrait.image))


def test_candidates_should_be_like_who_gives_the_identity(embedded: PortraitGenerator) -> None:
    analyzer = embedded.analyzer
    assert analyzer is not None
    giver = analyzer.analyze(MAN)
    asked = GenerationRequest(PHOTO, PROMPT, GenerationSettings.of(steps=6, seed=2), donors=Donors({"identity": giver}))
    (best,) = n_best(embedded, asked, candidates=1)
    wanted = score(best.portrait.image, identity=giver.identity_embedding, prompt=PROMPT, analyzer=analyzer)
    assert best.scores.identity == pytest.approx(wanted.identity, abs=1e-5)


@pytest.mark.parametrize(("likenesses", "runs"), [(None, 2 + 2 + 4), ((0.9, 0.7, 0.85), 4 + 2 + 4)])
def test_hopeless_candidates_are_given_up(
    fresh_generator: PortraitGenerator,
    generator: PortraitGenerator,
    drawn: FaceAnalysis,
    monkeypatch: pytest.MonkeyPatch,
    likenesses: tuple[float, ...] | None,
    runs: int,
) -> None:
    if likenesses is not None:
        seen = iter(likenesses)
        monkeypatch.setattr("consistentid.generation.n_best.likeness", lambda *_, **__: next(seen))
    assert generator.analyzer is not None
    quick = FaceAnalyzer(DlibDetector(), generator.analyzer.parser, None)  # the usual one looks at small pictures long
    generator = PortraitGenerator(fresh_generator.pipeline, fresh_generator.adapter, analyzer=quick)
    calls: list[int] = []
    handle = generator.pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    request = GenerationRequest(drawn, PROMPT, GenerationSettings.of(steps=4))
    try:
        with pytest.raises(NoFaceFound, match="none of 3 candidates shows a face"):
            n_best(generator, request, candidates=3, look_at=0.5, batch_size=1)
    finally:
        handle.remove()
    assert len(calls) == runs, "no face, or far behind the best; of three, two may be missed"


def test_impossible_requests(generator: PortraitGenerator, fresh_generator: PortraitGenerator, drawn: Any) -> None:
    with pytest.raises(InvalidSettings, match="the best 2 of 1 cannot be chosen"):
        n_best(generator, GenerationRequest(drawn, PROMPT, GenerationSettings.of(num_images=2)), candidates=1)
    blind = PortraitGenerator(fresh_generator.pipeline, fresh_generator.adapter, analyzer=None)
    with pytest.raises(InvalidSettings, match="needs a face analyzer"):
        n_best(blind, GenerationRequest(drawn, PROMPT), candidates=2)
