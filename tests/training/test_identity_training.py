"""How likeness is taught: strangers, the identity prior, the scale of the inputs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from consistentid.dataset.samples import Batch, Told
from consistentid.dataset.wording import corpus
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.config import AdapterSizes
from consistentid.training.embedded.diffusion import facial_prompt_tokenizer, new_models
from consistentid.training.embedded.initialise import awaken, standardise_inputs
from consistentid.training.embedded.models import new_tokenizer
from consistentid.training.embedded.prior import fit_prior
from consistentid.training.embedded.sampler import StoreSampler, _imagined
from consistentid.training.embedded.store import GENDERS, MIXED_REGIONS, References, Targets
from consistentid.training.embedded.token_warmup import TokenTask
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.latent_regression import LatentRegression
from consistentid.training.losses import Losses
from consistentid.training.share import Share
from consistentid.training.step import StepConfig, TrainingModels, draw_step, spread, training_step

_PHOTOS, _VIEWS, _BATCH = 6, 2, 4
_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return new_tokenizer(corpus())


@pytest.fixture(scope="module")
def models(tokenizer: CLIPTokenizer) -> TrainingModels:
    torch.manual_seed(0)
    return new_models(tokenizer, AdapterSizes(), encoder=DlibImageEncoder())


def test_the_first_rows_show_somebody_else(tokenizer: CLIPTokenizer) -> None:
    sampler = _sampler(tokenizer, strangers=0.5)
    batch = sampler.draw(8, torch.Generator().manual_seed(3))
    assert batch.stranger.tolist() == [True] * 4 + [False] * 4
    own = sampler.references.identity[:, 0]
    assert all(any(torch.equal(row, person) for person in own) for row in batch.told.identity[4:])
    assert len({tuple(row.tolist()) for row in batch.told.identity[:4]}) > 1


def test_an_asked_gender_moves_the_identity(tokenizer: CLIPTokenizer) -> None:
    sampler = _sampler(tokenizer)
    man, woman = GENDERS.index("man"), GENDERS.index("woman")
    men = torch.nonzero(sampler.targets.words[:, 0, 0] == man)[:, 0]
    asked = torch.full_like(men, woman)
    means = [sampler.references.identity[sampler.targets.words[:, 0, 0] == g, 0].mean(0) for g in (woman, man)]
    assert torch.allclose(sampler._towards(asked, men), (means[0] - means[1]).expand(len(men), -1))
    assert not sampler._towards(torch.full_like(men, man), men).any()


def test_the_noise_loss_does_not_see_strangers(models: TrainingModels, tokenizer: CLIPTokenizer) -> None:
    config = StepConfig(**_KEEP_ALL, foreground=0, localisation_weight=0)
    batch = _sampler(tokenizer, strangers=0.5).draw(_BATCH, torch.Generator().manual_seed(0))
    other = batch.latents.clone()
    other[batch.stranger] += 1
    with torch.no_grad():
        losses = [_step(models, replace(batch, latents=latents), config) for latents in (batch.latents, other)]
    assert torch.allclose(losses[0].noise, losses[1].noise, rtol=1e-4)


def test_strangers_share_their_noisy_latents_with_an_own_sample(tokenizer: CLIPTokenizer) -> None:
    batch = _sampler(tokenizer, strangers=0.5).draw(8, torch.Generator().manual_seed(0))
    assert torch.equal(batch.latents[:4], batch.latents[4:])
    assert torch.equal(batch.region_masks[:4], batch.region_masks[4:])
    assert not torch.equal(batch.identity_embedding[:4], batch.identity_embedding[4:])


@pytest.mark.parametrize("weights", [{"prior_weight": 1, "stranger_from": 0}, {"contrast_weight": 1}])
def test_strangers_are_told_by_the_prior(
    models: TrainingModels, tokenizer: CLIPTokenizer, weights: dict[str, float]
) -> None:
    sampler = _sampler(tokenizer, strangers=0.5)
    prior = fit_prior(sampler.targets, sampler.references, sampler.latents)
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


def test_region_tokens_alone_follow_the_prior(models: TrainingModels, tokenizer: CLIPTokenizer) -> None:
    sampler = replace(_sampler(tokenizer, strangers=0.5), without_caption=0)
    prior = fit_prior(sampler.targets, sampler.references, sampler.latents)
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


def test_a_strangers_regions_may_be_of_another_person(tokenizer: CLIPTokenizer) -> None:
    sampler = replace(_sampler(tokenizer, strangers=0.5), mixed=1.0)
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


def test_the_prior_knows_the_words_of_the_prompt(tokenizer: CLIPTokenizer) -> None:
    sampler = _sampler(tokenizer, strangers=0.5)
    asked = [_imagined(np.random.default_rng(seed)) for seed in range(40)]
    assert {one.expression for one in asked} == {None, "smiling", "serious"}
    batch = sampler.draw(40, torch.Generator().manual_seed(0))
    assert batch.told.words.shape == (40, 3)
    assert batch.told.words[:20, 0].max() == 2
    assert 0 < int((batch.told.words[:20, 1] > 0).sum()) < 20
    assert not batch.told.words[20:].any()  # of these targets no words hold


def test_the_prior_finds_the_person_in_the_latents() -> None:
    """Latents made by a known linear map from the embedding, plus nuisance everywhere."""
    generator = torch.Generator().manual_seed(0)
    embeddings = 0.05 * torch.randn(600, 8, generator=generator)
    slope = torch.randn(8, 2, 4, 4, generator=generator) * 10
    latents = torch.einsum("nd,dchw->nchw", embeddings, slope)[:, None]
    latents = latents + 0.3 * torch.randn(600, 2, 2, 4, 4, generator=generator)
    face = torch.zeros(4, 4)
    face[1:, 1:] = 1

    prior = _fit(embeddings, latents, torch.zeros(600, 2, 2, dtype=torch.long), face=face)

    found = prior.regression.slope.view(8, 2, 4, 4)
    assert not found[:, :, 0].any()
    assert torch.cosine_similarity(found[:, :, 1:, 1:].flatten(), slope[:, :, 1:, 1:].flatten(), dim=0) > 0.99
    coordinates = (embeddings - prior.regression.centre) @ prior.coordinates
    assert coordinates.shape[1] == 8
    assert 0.5 < float(coordinates.std(0).min()) < float(coordinates.std(0).max()) < 1.05


def test_words_decide_what_they_name_and_habits_where_nothing_is_said() -> None:
    """People of a kind tend to smile: unsaid, they are expected to; said, the word alone decides."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2000, 3, generator=generator)
    words = torch.zeros(2000, 1, 2, dtype=torch.long)
    words[:, 0, 0] = torch.where(embeddings[:, 0] + torch.randn(2000, generator=generator) > 0, 1, 2)
    latents = torch.randn(2000, 1, 1, 2, 2, generator=generator) * 0.1
    latents[:, 0, 0, 0, 0] += torch.where(words[:, 0, 0] == 1, 1.0, -1.0)

    regression = _fit(embeddings, latents, words).regression

    people = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    mouth = [regression.expected(_told(people, word))[:, 0] for word in (0, 1, 2)]
    assert mouth[0][0] > 0.3
    assert mouth[0][1] < -0.3
    assert torch.allclose(mouth[1], torch.ones(2), atol=0.15)
    assert torch.allclose(mouth[2], -torch.ones(2), atol=0.15)


def test_a_photos_background_is_no_habit_of_the_person() -> None:
    """Both attributes hold for people of a kind; only the first may be expected of them."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(500, 3, generator=generator)
    kind = torch.where(embeddings[:, 0] > 0, 1, 2)
    latents = torch.randn(500, 1, 1, 2, 2, generator=generator)
    regression = _fit(embeddings, latents, kind[:, None, None].expand(-1, 1, 2)).regression
    assert regression.habits[0, :2].abs().min() > 0.1
    assert not regression.habits[:, 2:].any()


def test_directions_of_words_count_more_than_those_of_people() -> None:
    """Words move the first value, people the second, by as much."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2000, 2, generator=generator)
    words = torch.randint(1, 3, (2000, 1, 2), generator=generator)
    latents = torch.randn(2000, 1, 1, 2, 2, generator=generator) * 0.1
    latents[:, 0, 0, 0, 0] += torch.where(words[:, 0, 0] == 1, 1.3, -1.3)
    latents[:, 0, 0, 0, 1] += embeddings[:, 0]
    prior = _fit(embeddings, latents, words)
    said = _told(embeddings[:1], 1)
    expected = prior.regression.expected(said).view(1, 1, 2, 2)

    def loss(place: int) -> float:
        wrong = expected.clone()
        wrong[0, 0, 0, place] += 1
        return float(prior.loss(wrong, expected, torch.zeros(1), said))

    assert loss(0) > 2 * loss(1)


def test_a_region_is_expected_to_be_its_own_persons() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, latents = torch.randn(50, 4, generator=generator), torch.randn(50, 2, 2, 3, 3, generator=generator)
    place = torch.zeros(1, 3, 3)
    place[0, 1, 1] = 1
    regression = _fit(embeddings, latents, torch.zeros(50, 2, 2, dtype=torch.long), places=place).regression
    first, second = _told(embeddings[:1]), _told(embeddings[1:2])
    mixed = regression.expected(replace(first, regions=second.regions)).view(2, 3, 3)
    alone = [regression.expected(one).view(2, 3, 3) for one in (first, second)]
    assert torch.allclose(mixed[:, 1, 1], alone[1][:, 1, 1], atol=1e-5)
    assert torch.allclose(mixed[:, 0], alone[0][:, 0])


def test_the_posterior_trusts_the_embedding_in_noise_and_the_latents_without() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, latents = torch.randn(50, 4, generator=generator), torch.randn(50, 2, 2, 3, 3, generator=generator)
    prior = _fit(embeddings, latents, torch.zeros(50, 2, 2, dtype=torch.long))
    clean, told = latents[:3, 0], _told(embeddings[:3])
    alphas = torch.tensor([0.0, 1 - 1e-6, 0.0])

    posterior = prior.posterior(clean, alphas, told)

    expected = prior.regression.expected(told)
    assert torch.allclose(posterior[0], expected[0], atol=1e-5)
    assert torch.allclose(posterior[1], clean[1].flatten(), atol=1e-2)
    assert float(prior.loss(expected.view_as(clean), clean, torch.zeros(3), told)) < 1e-8
    change = posterior - prior.posterior(clean, alphas, _told(embeddings[3:6]))
    contrast = prior.contrast(change.view_as(clean), clean, alphas, told, _told(embeddings[3:6]))
    assert float(contrast) == pytest.approx(0, abs=1e-8)
    assert float(prior.contrast(clean * 0, clean, torch.zeros(3), told, told)) == 0
    everybody = prior.regression.mean.view(1, 2, 3, 3).expand(50, -1, -1, -1)
    assert float(prior.loss(everybody, everybody, torch.zeros(50), _told(embeddings))) == pytest.approx(1, abs=0.05)


def _fit(
    embeddings: Tensor, latents: Tensor, words: Tensor, *, face: Tensor | None = None, places: Tensor | None = None
) -> IdentityPrior:
    size = latents.shape[-2:]
    regression = LatentRegression.fit(
        embeddings,
        latents,
        words,
        choices=(2, 3),
        habitual=(True, False),
        face=torch.ones(size) if face is None else face,
        places=torch.zeros(1, *size) if places is None else places,
    )
    return IdentityPrior.around(regression, embeddings, latents, words)


def _told(people: Tensor, expression: int = 0) -> Told:
    words = torch.zeros(len(people), 2, dtype=torch.long)
    words[:, 0] = expression
    return Told.of_people(people, words, regions=1)


@pytest.mark.parametrize("weight", ["face_weight", "detail_weight"])
def test_face_and_details_count_more_where_they_are_weighted(
    models: TrainingModels, tokenizer: CLIPTokenizer, weight: str
) -> None:
    batch = _sampler(tokenizer).draw(_BATCH, torch.Generator().manual_seed(0))
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


def test_people_get_different_tokens_after_standardising(models: TrainingModels, tokenizer: CLIPTokenizer) -> None:
    sampler = _sampler(tokenizer)
    references, prior = sampler.references, fit_prior(sampler.targets, sampler.references, sampler.latents)
    identity, whole = references.identity[:, 0], references.whole[:, 0].float()

    def spread() -> float:
        with torch.no_grad():
            return float(models.adapter.identity_tokens(identity, whole).std(0).mean())

    before = spread()
    standardise_inputs(models, references, prior)
    assert spread() > 3 * before


def test_awake_region_tokens_differ_as_much_as_words(tokenizer: CLIPTokenizer) -> None:
    torch.manual_seed(0)
    encoder = new_models(tokenizer, AdapterSizes(), encoder=DlibImageEncoder()).adapter.facial_encoder
    people = 0.05 * torch.randn(30, 1, 1, 1, 448)  # features differ more between regions, and places, than people
    regions = torch.randn(1, 1, 5, 1, 448) + torch.randn(1, 1, 1, 64, 448) + people
    references = replace(
        _sampler(tokenizer).references, regions=regions, present=torch.ones(30, 1, 5, dtype=torch.bool)
    )

    def spread() -> float:
        word = torch.randn(256, generator=torch.Generator().manual_seed(0)).expand(len(regions), -1)
        with torch.no_grad():
            fused = encoder.fuse_module(word, encoder.region_tokens(regions[:, 0, 2]))
        return float((fused - fused.mean(0)).norm(dim=1).mean() / fused.norm(dim=1).mean())

    before = spread()
    awaken(encoder, references)
    assert before < 0.1
    assert spread() > 0.4


def test_region_tokens_learn_to_say_what_identity_tokens_say(tokenizer: CLIPTokenizer) -> None:
    torch.manual_seed(0)
    models = new_models(tokenizer, AdapterSizes(), encoder=DlibImageEncoder())
    sampler = replace(_sampler(tokenizer), without_caption=0)
    standardise_inputs(models, sampler.references, fit_prior(sampler.targets, sampler.references, sampler.latents))
    task = TokenTask(models, sampler, batch_size=6)
    optimizer = torch.optim.Adam(task.modules["facial_encoder"].parameters(), lr=1e-3)
    told: dict[str, list[float]] = {"face": [], "look": []}
    for step in range(12):
        losses = task.losses(Share(0, step))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        for name, values in told.items():
            values.append(float(losses[name].detach()))
    assert told["face"][-1] < 0.8 * told["face"][0]
    assert told["look"][-1] < told["look"][0]


def _step(models: TrainingModels, batch: Batch, config: StepConfig) -> Losses:
    """The step with the same draws every time."""
    generator = torch.Generator().manual_seed(1)
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, generator, config=config)
    return training_step(models, batch, draws, config=config)


def _sampler(tokenizer: CLIPTokenizer, *, strangers: float = 0.0) -> StoreSampler:
    """A store of random numbers whose embeddings are as close together as a recogniser's."""
    generator = torch.Generator().manual_seed(5)
    n, v = _PHOTOS, _VIEWS
    centre = torch.randn(128, generator=generator) * 0.12
    whole = torch.randn(448, generator=generator)
    words = torch.zeros(n, v, 4, dtype=torch.uint8)
    words[::2, :, 0], words[1::2, :, 0] = GENDERS.index("man"), GENDERS.index("woman")
    return StoreSampler(
        latents=torch.randn(n, v, 8, 16, 16, generator=generator),
        targets=Targets(
            images=torch.zeros(n, v, 128, 128, 3, dtype=torch.uint8),
            foreground=torch.ones(n, v, 16, 16, dtype=torch.bool),
            regions=torch.ones(n, v, 5, 16, 16, dtype=torch.bool),
            words=words,
            donors=torch.arange(n)[:, None].expand(n, v),
            mixed=torch.zeros(n, v, 5, dtype=torch.bool),
        ),
        references=References(
            identity=centre + 0.05 * torch.randn(n, v, 128, generator=generator),
            whole=whole + 0.1 * torch.randn(n, v, 64, 448, generator=generator),
            regions=whole + 0.1 * torch.randn(n, v, 5, 64, 448, generator=generator),
            present=torch.ones(n, v, 5, dtype=torch.bool),
        ),
        persons=torch.arange(n),
        tokenize=facial_prompt_tokenizer(tokenizer),
        strangers=strangers,
    )
