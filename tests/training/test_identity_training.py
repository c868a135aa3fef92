"""How likeness is taught: strangers, the identity prior, the scale of the inputs, the warm-up of the tokens."""

from dataclasses import replace

import pytest
import torch
from transformers import CLIPTokenizer

from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.captions import corpus
from consistentid.training.embedded.config import AdapterSizes
from consistentid.training.embedded.diffusion import facial_prompt_tokenizer, new_models
from consistentid.training.embedded.identity_warmup import IdentityTask
from consistentid.training.embedded.initialise import standardise_inputs
from consistentid.training.embedded.models import new_tokenizer
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.embedded.store import GENDERS, References, Targets, fit_prior
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.step import StepConfig, TrainingModels, spread, training_step

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
    assert all(any(torch.equal(row, person) for person in own) for row in batch.target_identity[4:])
    assert len({tuple(row.tolist()) for row in batch.target_identity[:4]}) > 1


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
        losses = [
            training_step(models, replace(batch, latents=latents), torch.Generator().manual_seed(1), config=config)
            for latents in (batch.latents, other)
        ]
    assert torch.allclose(losses[0].noise, losses[1].noise, rtol=1e-4)


def test_strangers_are_told_by_the_prior_at_high_noise(models: TrainingModels, tokenizer: CLIPTokenizer) -> None:
    sampler = _sampler(tokenizer, strangers=0.75)
    prior = fit_prior(sampler.targets, sampler.references, sampler.latents)
    config = StepConfig(**_KEEP_ALL, localisation_weight=0, prior_weight=1, prior_from=0.99, timestep_power=1)
    batch = sampler.draw(_BATCH, torch.Generator().manual_seed(0))
    losses = training_step(replace(models, prior=prior), batch, torch.Generator().manual_seed(1), config=config)
    assert losses.prior is not None
    losses.prior.backward()
    for group in ("projector", "kv", "facial_encoder"):
        gradients = [one.grad for one in models.adapter.parameters_by_group()[group].values() if one.grad is not None]
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0, group
    models.unet.zero_grad()
    moved = replace(batch, target_identity=batch.target_identity + 0.1)
    again = training_step(replace(models, prior=prior), moved, torch.Generator().manual_seed(1), config=config)
    assert again.prior is not None
    assert not torch.isclose(again.prior, losses.prior)
    assert torch.equal(again.noise, losses.noise)


def test_the_prior_finds_the_person_in_the_latents() -> None:
    """Latents made by a known linear map from the embedding, plus nuisance everywhere."""
    generator = torch.Generator().manual_seed(0)
    embeddings = 0.05 * torch.randn(600, 8, generator=generator)
    slope = torch.randn(8, 2, 4, 4, generator=generator) * 10
    latents = torch.einsum("nd,dchw->nchw", embeddings, slope)[:, None]
    latents = latents + 0.3 * torch.randn(600, 2, 2, 4, 4, generator=generator)
    face = torch.zeros(4, 4)
    face[1:, 1:] = 1

    prior = IdentityPrior.fit(embeddings, latents, face)

    found = prior.slope.view(8, 2, 4, 4)
    assert not found[:, :, 0].any()
    assert torch.cosine_similarity(found[:, :, 1:, 1:].flatten(), slope[:, :, 1:, 1:].flatten(), dim=0) > 0.99
    coordinates = (embeddings - prior.centre) @ prior.coordinates
    assert coordinates.shape[1] == 8
    assert 0.5 < float(coordinates.std(0).min()) < float(coordinates.std(0).max()) < 1.05


def test_the_posterior_trusts_the_embedding_in_noise_and_the_latents_without() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, latents = torch.randn(50, 4, generator=generator), torch.randn(50, 2, 2, 3, 3, generator=generator)
    prior = IdentityPrior.fit(embeddings, latents, torch.ones(3, 3))
    clean = latents[:3, 0]
    alphas = torch.tensor([0.0, 1 - 1e-6, 0.0])

    posterior = prior.posterior(clean, alphas, embeddings[:3])

    expected = prior.mean + (embeddings[:3] - prior.centre) @ prior.slope
    assert torch.allclose(posterior[0], expected[0], atol=1e-5)
    assert torch.allclose(posterior[1], clean[1].flatten(), atol=1e-2)
    assert float(prior.loss(expected.view_as(clean), clean, torch.zeros(3), embeddings[:3])) < 1e-8
    everybody = prior.mean.view(1, 2, 3, 3).expand(50, -1, -1, -1)
    assert float(prior.loss(everybody, everybody, torch.zeros(50), embeddings)) == pytest.approx(1, abs=0.05)


def test_the_face_counts_more_where_it_is_weighted(models: TrainingModels, tokenizer: CLIPTokenizer) -> None:
    batch = _sampler(tokenizer).draw(_BATCH, torch.Generator().manual_seed(0))
    masks = torch.zeros_like(batch.region_masks)
    masks[:, :, 4:12, 4:12] = 1
    batch = replace(batch, region_masks=masks)

    def rise(rows: slice, face_weight: float) -> float:
        """How much the noise loss grows when the target changes in these rows."""
        config = StepConfig(**_KEEP_ALL, foreground=0, localisation_weight=0, face_weight=face_weight)
        latents = batch.latents.clone()
        latents[:, :, rows, 4:12] *= 3
        with torch.no_grad():
            noise = [
                training_step(
                    models, replace(batch, latents=one), torch.Generator().manual_seed(1), config=config
                ).noise
                for one in (batch.latents, latents)
            ]
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


def test_the_warm_up_makes_tokens_tell_who_it_is(models: TrainingModels, tokenizer: CLIPTokenizer) -> None:
    torch.manual_seed(0)
    task = IdentityTask(models, _sampler(tokenizer), batch_size=6)
    parameters = [parameter for module in task.modules.values() for parameter in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    told = []
    for step in range(25):
        losses = task.losses(torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        told.append(float(losses["whole"].detach()))
    assert sum(told[-5:]) < 0.8 * sum(told[:5])


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
