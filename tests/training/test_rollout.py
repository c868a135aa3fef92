"""Portraits judged on the model's own way down from noise, and the weights of compared regions."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderTiny

from consistentid.dataset.samples import Batch, Looks
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.loading import embedded_folder
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.blended import blended
from consistentid.training.compared import Compared, weighted_regions
from consistentid.training.conditions import ComparisonDraws, Draws, Kept
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.prediction import TrainingModels, predict
from consistentid.training.recognition import Recognition
from consistentid.training.rollout import less_noisy, rolled_out
from consistentid.training.step import draw_step, noised, training_step
from consistentid.training.step_config import StepConfig

_EYES, _NOSE = REGION_NAMES.index("eyes"), REGION_NAMES.index("nose")
_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}
_CONFIG = StepConfig(**_KEEP_ALL, localisation_weight=0, drawn_identity_weight=1, drawn_regions_weight=1, rollouts=2)
_PLACES = torch.tensor([[44.0, 50], [84, 50], [64, 75], [48, 95], [80, 95]])


@pytest.fixture(scope="module")
def judging(models: TrainingModels) -> TrainingModels:
    autoencoder = AutoencoderTiny.from_pretrained(embedded_folder() / "vae", torch_dtype=torch.float32)
    recognition = Recognition(autoencoder.eval().requires_grad_(False), DlibImageEncoder(), _PLACES)
    return replace(models, recognition=replace(recognition, spread=torch.ones(5, 2)))


@pytest.fixture
def batch(sampler: StoreSampler) -> Batch:
    """Three samples; how their regions are to look is random."""
    batch = sampler.draw(3, torch.Generator().manual_seed(0))
    embeddings = torch.randn(3, 5, 2, 1792, generator=torch.Generator().manual_seed(2))
    boxes = torch.tensor([0.0, 0, 0.3, 0.3]).expand(3, 5, 4)
    return replace(batch, looks=Looks(embeddings, boxes, torch.ones(3, 5, dtype=torch.bool)))


def _draws(models: TrainingModels, batch: Batch, config: StepConfig = _CONFIG) -> Draws:
    return draw_step(tuple(batch.latents.shape), models.scheduler, torch.Generator().manual_seed(1), config=config)


def test_a_step_towards_what_is_right_keeps_to_the_noise(models: TrainingModels) -> None:
    clean, noise = (torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    now, then = torch.tensor([998, 700]), torch.tensor([500, 90])
    noisy, velocity = noised(models.scheduler, clean, now, noise)
    expected, _ = noised(models.scheduler, clean, then, noise)
    assert torch.allclose(less_noisy(models.scheduler, velocity, noisy, now, then), expected, atol=1e-4)


def test_portraits_do_not_see_the_targets(judging: TrainingModels, batch: Batch) -> None:
    draws = _draws(judging, batch)
    with torch.no_grad():
        first, second = (
            training_step(judging, replace(batch, latents=latents), draws, config=_CONFIG)
            for latents in (batch.latents, batch.latents.flip(0))
        )
    assert not torch.equal(first.noise, second.noise)
    assert torch.equal(first.drawn_identity, second.drawn_identity)
    assert torch.equal(first.drawn_regions, second.drawn_regions)
    assert torch.allclose(first.total, first.noise + first.drawn_identity + first.drawn_regions)


def test_only_as_many_are_drawn_as_asked_for(judging: TrainingModels, batch: Batch) -> None:
    draws = _draws(judging, batch)
    with torch.no_grad():
        judged = rolled_out(judging, batch, draws, config=_CONFIG)
    assert len(judged.batch) == len(judged.clean) == 2
    nothing = replace(
        draws, kept=replace(draws.kept, regions=draws.kept.regions & False, identity=draws.everywhere & False)
    )
    assert rolled_out(judging, batch, nothing, config=_CONFIG) is None


def test_gradients_reach_the_adapter_by_the_last_prediction(judging: TrainingModels, batch: Batch) -> None:
    judging.unet.zero_grad()
    encoder = judging.adapter.facial_encoder.requires_grad_(True)
    encoder.zero_grad()
    losses = training_step(judging, batch, _draws(judging, batch), config=_CONFIG)
    (losses.drawn_identity + losses.drawn_regions).backward()
    assert any(one.grad is not None and one.grad.any() for one in encoder.parameters())
    projector = judging.adapter.parameters_by_group()["projector"].values()
    assert any(one.grad is not None and one.grad.any() for one in projector)


def test_regions_of_somebody_else_are_compared_first(batch: Batch) -> None:
    kept = replace(_kept(batch), regions=torch.ones(3, 5, dtype=torch.bool))
    told = replace(batch.told, regions=batch.told.regions.clone())
    told.regions[:, _NOSE] += 1
    draws = ComparisonDraws(torch.zeros(3, 5), torch.zeros(3, 5) > 0, torch.tensor([True, False, True]))
    known = batch.looks.known.clone()
    known[2] = False
    mixed = replace(batch, told=told, looks=replace(batch.looks, known=known))
    compared = Compared.choose(mixed, kept, draws, count=1)
    assert torch.nonzero(compared.regions).tolist() == [[0, _NOSE], [1, _NOSE]]
    weights = weighted_regions(compared, kept, strength={})
    assert torch.nonzero(weights != 1).tolist() == [[0, _NOSE]]
    assert float(weights[0, _NOSE]) == 1.5
    weaker = weighted_regions(compared, kept, strength={"nose": 0.4, "eyes": 0.5})
    assert weaker[:, _NOSE].tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert weaker[:, _EYES].tolist() == [0.5] * 3
    assert Compared.choose(replace(batch, looks=None), kept, draws, count=1) is None


def test_weights_change_what_the_u_net_is_told(models: TrainingModels, batch: Batch) -> None:
    kept, timesteps = _kept(batch), torch.full((3,), 500)
    weights = torch.ones(3, 5)
    with torch.no_grad():
        usual = predict(models, batch, kept, batch.latents, timesteps)
        same = predict(models, batch, kept, batch.latents, timesteps, weights=weights)
        without = predict(models, batch, replace(kept, regions=kept.regions & False), batch.latents, timesteps)
        nothing = predict(models, batch, kept, batch.latents, timesteps, weights=0 * weights)
        weights[0, _EYES] = 1.5
        more = predict(models, batch, kept, batch.latents, timesteps, weights=weights)
    assert torch.equal(usual, same)
    assert torch.allclose(nothing, without, atol=1e-5)
    assert not torch.equal(nothing, usual)
    assert (more != usual).flatten(1).any(1).tolist() == [True, False, False]


def test_tokens_are_told_as_strongly_as_the_configuration_says(judging: TrainingModels, batch: Batch) -> None:
    weak = _CONFIG.model_copy(update={"region_strength": dict.fromkeys(REGION_NAMES, 0.1)})
    draws = _draws(judging, batch)
    with torch.no_grad():
        whole, weakly = (training_step(judging, batch, draws, config=config) for config in (_CONFIG, weak))
        assert not torch.equal(whole.noise, weakly.noise)
        assert not torch.equal(whole.drawn_regions, weakly.drawn_regions)
    every = _kept(batch)
    assert weighted_regions(None, every, strength={}) is None
    assert weighted_regions(None, every, strength={"eyes": 0.5})[:, _EYES].tolist() == [0.5] * 3


def test_compared_regions_are_blends_with_those_of_the_next(batch: Batch) -> None:
    assert batch.looks is not None
    known = batch.looks.known.clone()
    known[1, _NOSE] = False
    batch = replace(batch, valid=torch.ones_like(batch.valid), looks=replace(batch.looks, known=known))
    regions = torch.zeros(3, 5, dtype=torch.bool)
    regions[:, _NOSE] = True
    compared = Compared(regions, regions, regions[:, 0])
    made = blended(batch, compared, torch.tensor([0.5, 0.25, 0.0]))
    assert made.looks is not None
    assert made.told is not None
    assert batch.looks is not None
    features, looks = batch.region_features, batch.looks.embeddings
    expected = 0.75 * features[1, _NOSE] + 0.25 * features[2, _NOSE]
    assert torch.allclose(made.region_features[1, _NOSE], expected, atol=1e-5)
    assert torch.equal(made.region_features[0], features[0])  # the next shows none
    assert torch.equal(made.region_features[2], features[2])  # share 0
    assert torch.equal(made.region_features[:, _EYES], features[:, _EYES])  # not compared
    for view in range(2):
        mine, its = (looks[row, _NOSE, view] for row in (1, 2))
        halves = 0.75 * mine / mine.norm() + 0.25 * its / its.norm()
        assert torch.allclose(made.looks.embeddings[1, _NOSE, view], halves, atol=1e-5)
    assert made.told.mixed[1, _NOSE]
    assert not made.told.mixed[:, _EYES].any()
    assert blended(batch, None, torch.ones(3)) is batch


def test_blends_need_drawn_regions() -> None:
    with pytest.raises(ValueError, match="blended needs regions compared in portraits drawn from noise"):
        StepConfig(**_KEEP_ALL, blended=0.5)


@pytest.mark.parametrize("alone", [{"rollouts": 2}, {"drawn_regions_weight": 1.0}, {"drawn_identity_weight": 1.0}])
def test_portraits_and_their_weights_go_together(alone: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="go together; give both or none"):
        StepConfig(**_KEEP_ALL, **alone)


def test_exaggerated_comparisons_count_more() -> None:
    nowhere = torch.zeros(2, 5, dtype=torch.bool)
    assert Compared(nowhere, nowhere, torch.tensor([False, True])).counts.tolist() == [1, 2.5]


def _kept(batch: Batch) -> Kept:
    every = torch.ones(len(batch), dtype=torch.bool)
    return Kept(every, torch.ones(len(batch), 5, dtype=torch.bool) & batch.valid, every, fused=True, scale=1.0)
