"""What a step teaches of likeness: strangers, the identity prior, the weights of face and details."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from consistentid.dataset.samples import Batch, Told
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.sampler import StoreSampler, _imagined
from consistentid.training.embedded.store import EXPRESSIONS, GENDERS, MIXED_REGIONS, PRIOR_WORDS
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import Losses
from consistentid.training.prediction import TrainingModels
from consistentid.training.step import draw_step, spread, training_step
from consistentid.training.step_config import StepConfig

_BATCH = 4
_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}


def test_the_first_rows_show_somebody_else(sampler: StoreSampler) -> None:
    sampler = replace(sampler, strangers=0.5)
    batch = sampler.draw(8, torch.Generator().manual_seed(3))
    assert batch.stranger.tolist() == [True] * 4 + [False] * 4
    own = sampler.references.identity[:, 0]
    assert all(any(torch.equal(row, person) for person in own) for row in batch.told.identity[4:])
    assert len({tuple(row.tolist()) for row in batch.told.identity[:4]}) > 1


def test_an_asked_gender_moves_the_identity(sampler: StoreSampler) -> None:
    man, woman = GENDERS.index("man"), GENDERS.index("woman")
    men = torch.nonzero(sampler.targets.words[:, 0, 0] == man)[:, 0]
    asked = torch.full_like(men, woman)
    means = [sampler.references.identity[sampler.targets.words[:, 0, 0] == g, 0].mean(0) for g in (woman, man)]
    assert torch.allclose(sampler._towards(asked, men), (means[0] - means[1]).expand(len(men), -1))
    assert not sampler._towards(torch.full_like(men, man), men).any()


def test_a_quiet_text_leaves_the_expression_to_the_mouth(sampler: StoreSampler) -> None:
    smiling, words = EXPRESSIONS.index("smiling"), sampler.targets.words.clone()
    words[..., 1] = smiling
    sampler = replace(sampler, targets=replace(sampler.targets, words=words))
    said = {
        (quiet, contradict): set(
            replace(sampler, quiet=quiet, contradict=contradict)
            .draw(16, torch.Generator().manual_seed(0))
            .told.words[:, PRIOR_WORDS.index(1)]
            .tolist()
        )
        for quiet, contradict in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    }
    assert said == {(0.0, 0.0): {0, smiling}, (1.0, 0.0): {0}, (1.0, 1.0): {smiling}}


def test_the_prior_is_told_the_expression_of_the_mouth_that_is_shown(sampler: StoreSampler) -> None:
    """Each person has a smiling and a serious photo; a silent text gets a reference of the target's expression."""
    smiling, serious = EXPRESSIONS.index("smiling"), EXPRESSIONS.index("serious")
    words = sampler.targets.words.clone()
    words[::2, :, 1], words[1::2, :, 1] = smiling, serious
    pairs = torch.arange(len(words)) // 2
    sampler = replace(sampler, targets=replace(sampler.targets, words=words), persons=pairs, quiet=1.0)
    column = PRIOR_WORDS.index(1)
    for contradict, other_photo in ((0.0, 1.0), (1.0, 0.0)):
        drawn = replace(sampler, contradict=contradict, other_photo=other_photo)
        batch = drawn.draw(16, torch.Generator().manual_seed(0))
        smiles = [bool((sampler.latents[::2] == one).flatten(2).all(2).any()) for one in batch.latents]
        agrees = torch.tensor(smiles) if not contradict else ~torch.tensor(smiles)
        assert torch.equal(batch.told.mouth_words[:, column], torch.where(agrees, smiling, serious))
        assert not batch.told.mouth_words[:, [one for one in range(3) if one != column]].any()


def test_the_noise_loss_does_not_see_strangers(models: TrainingModels, sampler: StoreSampler) -> None:
    config = StepConfig(**_KEEP_ALL, foreground=0, localisation_weight=0)
    batch = replace(sampler, strangers=0.5).draw(_BATCH, torch.Generator().manual_seed(0))
    other = batch.latents.clone()
    other[batch.stranger] += 1
    with torch.no_grad():
        losses = [_step(models, replace(batch, latents=latents), config) for latents in (batch.latents, other)]
    assert torch.allclose(losses[0].noise, losses[1].noise, rtol=1e-4)


def test_strangers_share_their_noisy_latents_with_an_own_sample(sampler: StoreSampler) -> None:
    batch = replace(sampler, strangers=0.5).draw(8, torch.Generator().manual_seed(0))
    assert torch.equal(batch.latents[:4], batch.latents[4:])
    assert torch.equal(batch.region_masks[:4], batch.region_masks[4:])
    assert not torch.equal(batch.identity_embedding[:4], batch.identity_embedding[4:])


@pytest.mark.parametrize("weights", [{"prior_weight": 1, "stranger_from": 0}, {"contrast_weight": 1}])
def test_strangers_are_told_by_the_prior(
    models: TrainingModels, sampler: StoreSampler, prior: IdentityPrior, weights: dict[str, float]
) -> None:
    sampler = replace(sampler, strangers=0.5)
    config = StepConfig(**_KEEP_ALL, **weights, localisation_weight=0, prior_from=0.99)
    batch = sampler.draw(_BATCH, torch.Generator().manual_seed(0))
    models.unet.zero_grad()
    losses = _step(replace(models, prior=prior), batch, config)
    told = losses.total - losses.noise
    told.backward()
    for group in ("projector", "kv", "facial_encoder"):
        gradients = [one.grad for one in models.adapter.parameters_by_group()[group].values() if one.grad is not None]
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0, group
    people = batch.told.identity + 0.1 * batch.stranger[:, None]
    moved = replace(batch, told=Told.of_people(people, batch.told.words, regions=len(REGION_NAMES)))
    again = _step(replace(models, prior=prior), moved, config)
    assert not torch.isclose(again.total - again.noise, told)
    assert torch.equal(again.noise, losses.noise)


def test_region_tokens_alone_follow_the_prior(
    models: TrainingModels, sampler: StoreSampler, prior: IdentityPrior
) -> None:
    sampler = replace(sampler, strangers=0.5, without_caption=0)
    batch = sampler.draw(_BATCH, torch.Generator().manual_seed(0))
    models = replace(models, prior=prior)
    for kind in ({"drop_identity": 1}, {"regions_only": 1}, {"base_only": 1}, {"drop_identity": 1, "drop_regions": 1}):
        config = StepConfig(**_KEEP_ALL | kind, localisation_weight=0, prior_weight=1)
        models.unet.zero_grad()
        models.adapter.facial_encoder.zero_grad()
        losses = _step(models, batch, config)
        if "base_only" in kind:
            assert losses.prior is None
        elif "drop_regions" in kind:
            assert float(losses.prior.detach()) == 0
        else:
            losses.prior.backward()
            assert any(float(one.grad.abs().max()) for one in models.adapter.facial_encoder.parameters())
            kv = models.adapter.parameters_by_group()["kv"].values()
            assert any(one.grad is not None and one.grad.any() for one in kv) == ("drop_identity" in kind)


def test_a_strangers_regions_may_be_of_another_person(sampler: StoreSampler) -> None:
    sampler = replace(sampler, strangers=0.5, mixed=1.0)
    batch = sampler.draw(8, torch.Generator().manual_seed(0))
    another = (batch.told.regions != batch.told.identity[:, None]).any(2)
    mixable = torch.tensor([name in MIXED_REGIONS for name in REGION_NAMES])
    assert another[:4, mixable].any()
    assert not another[:, ~mixable].any()
    assert not another[4:].any()
    people = sampler.references.identity[:, 0]
    sample, region = (int(index[0]) for index in torch.nonzero(another, as_tuple=True))
    person = int((people == batch.told.regions[sample, region]).all(1).nonzero()[0])
    features = sampler.references.regions[person, :, region]
    assert any(torch.equal(batch.region_features[sample, region], view) for view in features)


def test_the_prior_knows_the_words_of_the_prompt(sampler: StoreSampler) -> None:
    sampler = replace(sampler, strangers=0.5)
    asked = [_imagined(np.random.default_rng(seed)) for seed in range(40)]
    assert {one.expression for one in asked} == {None, "smiling", "serious"}
    batch = sampler.draw(40, torch.Generator().manual_seed(0))
    assert batch.told.words.shape == (40, 3)
    assert batch.told.words[:20, 0].max() == 2
    assert 0 < int((batch.told.words[:20, 1] > 0).sum()) < 20
    assert not batch.told.words[20:].any()  # of these targets no words hold


@pytest.mark.parametrize("weight", ["face_weight", "detail_weight"])
def test_face_and_details_count_more_where_they_are_weighted(
    models: TrainingModels, sampler: StoreSampler, weight: str
) -> None:
    batch = sampler.draw(_BATCH, torch.Generator().manual_seed(0))
    masks = torch.zeros_like(batch.region_masks)
    masks[:, :, 4:12, 4:12] = 1
    batch = replace(batch, region_masks=masks)

    def rise(rows: slice, value: float) -> float:
        """How much the noise loss grows when the target changes in these rows."""
        config = StepConfig(**_KEEP_ALL, foreground=0, localisation_weight=0, **{weight: value})
        latents = batch.latents.clone()
        latents[:, :, rows, 4:12] *= 3
        with torch.no_grad():
            noise = [_step(models, replace(batch, latents=one), config).noise for one in (batch.latents, latents)]
        return float(noise[1] - noise[0])

    assert rise(slice(4, 12), 4.0) > 1.5 * rise(slice(4, 12), 0.0)
    assert rise(slice(0, 4), 4.0) < rise(slice(0, 4), 0.0)


def test_timesteps_are_spread_over_the_schedule() -> None:
    drawn = spread(10, torch.Generator().manual_seed(0))
    assert sorted((drawn * 10).long().tolist()) == list(range(10))


def _step(models: TrainingModels, batch: Batch, config: StepConfig) -> Losses:
    """The step with the same draws every time."""
    generator = torch.Generator().manual_seed(1)
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, generator, config=config)
    return training_step(models, batch, draws, config=config)
