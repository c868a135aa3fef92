"""The identity prior: latents that embeddings and words let expect, on latents made by known rules."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from consistentid.dataset.samples import Told
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.latent_regression import LatentRegression
from consistentid.training.region_appearance import RegionAppearance


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


def test_the_prior_wants_the_change_that_the_image_of_a_region_lets_expect() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, latents = torch.randn(80, 4, generator=generator), torch.randn(80, 2, 2, 3, 3, generator=generator)
    prior = _fit(embeddings, latents, torch.zeros(80, 2, 2, dtype=torch.long))
    prior = replace(prior, appearance=RegionAppearance(torch.zeros(1, 5), torch.randn(1, 5, 18, generator=generator)))
    told = replace(
        _told(embeddings[:3]), appearance=torch.randn(3, 1, 5, generator=generator), appears=torch.ones(3, 1).bool()
    )
    given = latents[:3, 0], torch.full((3,), 0.2), told, replace(told, appears=torch.zeros(3, 1).bool())
    wanted = (prior.posterior(*given[:3]) - prior.posterior(*given[:2], given[3])).view(3, 2, 3, 3)
    assert wanted.abs().max() > 0.1
    for share, left in ((1, 0), (0.5, 0.25), (0, 1)):
        assert float(prior.contrast(share * wanted, *given, relative=True)) == pytest.approx(left, abs=1e-5)


def test_directions_are_those_of_images_of_regions_too() -> None:
    """With the directions of embeddings and words alone, most of what images say was never taught."""
    generator = torch.Generator().manual_seed(0)
    embeddings, latents = torch.randn(80, 4, generator=generator), torch.randn(80, 2, 2, 3, 3, generator=generator)
    words = torch.zeros(80, 2, 2, dtype=torch.long)
    plain, appearance = _fit(embeddings, latents, words), RegionAppearance(torch.zeros(1, 2), torch.eye(18)[None, :2])
    looks, shown = torch.randn(80, 1, 2, generator=generator), torch.ones(80, 1, dtype=torch.bool)
    told = [replace(_told(embeddings), appearance=looks, appears=shown)] * 2
    prior = IdentityPrior.around(plain.regression, told, latents, appearance=appearance)
    assert torch.allclose(prior.expected(told[0]) - plain.expected(told[0]), looks[:, 0] @ torch.eye(18)[:2])
    kept = [one.directions[:2].square().sum(1).min() for one in (plain, prior)]
    assert float(kept[0]) < 0.9
    assert float(kept[1]) == pytest.approx(1, abs=1e-4)


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
    told = [Told.of_people(embeddings, one, regions=len(regression.places)) for one in words.unbind(1)]
    return IdentityPrior.around(regression, told, latents)


def _told(people: Tensor, expression: int = 0) -> Told:
    words = torch.zeros(len(people), 2, dtype=torch.long)
    words[:, 0] = expression
    return Told.of_people(people, words, regions=1)
