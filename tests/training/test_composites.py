"""Targets that show regions of another photo."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.composites import with_composites
from consistentid.training.embedded.diffusion import facial_prompt_tokenizer
from consistentid.training.embedded.looks import RegionLooks
from consistentid.training.embedded.prior import fit_prior
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.embedded.store import EXPRESSIONS, GENDERS, References, Targets

_PHOTOS, _VARIANTS = 6, 2
_PLACES = {
    "eyes": (slice(5, 7), slice(4, 12)),
    "nose": (slice(7, 9), slice(7, 9)),
    "mouth": (slice(10, 12), slice(5, 11)),
}


@pytest.fixture
def targets() -> Targets:
    """Plain grey pictures, each photo of its own brightness, whose regions are a shade darker."""
    regions = torch.zeros(_PHOTOS, _VARIANTS, len(REGION_NAMES), 16, 16, dtype=torch.bool)
    images = torch.zeros(_PHOTOS, _VARIANTS, 128, 128, 3, dtype=torch.uint8)
    words = torch.zeros(_PHOTOS, _VARIANTS, 4, dtype=torch.uint8)
    for photo in range(_PHOTOS):
        images[photo] = 100 + 10 * photo
        words[photo, :, 0], words[photo, :, 1] = GENDERS.index("man"), 1 + photo % (len(EXPRESSIONS) - 1)
        for name, place in _PLACES.items():
            regions[(photo, slice(None), REGION_NAMES.index(name), *place)] = True
            rows, columns = (slice(8 * one.start, 8 * one.stop) for one in place)
            images[photo, :, rows, columns] = 20 * photo
    donors = torch.arange(_PHOTOS)[:, None].expand(-1, _VARIANTS)
    nothing = torch.zeros(_PHOTOS, _VARIANTS, len(REGION_NAMES), dtype=torch.bool)
    return Targets(images, torch.ones(_PHOTOS, _VARIANTS, 16, 16, dtype=torch.bool), regions, words, donors, nothing)


def test_only_mixed_regions_change(targets: Targets) -> None:
    composed = with_composites(targets, variants=3, seed=0)
    assert composed.plain == _VARIANTS
    assert composed.images.shape[1] == _VARIANTS + 3
    seen = set()
    for photo in range(_PHOTOS):
        for variant in range(_VARIANTS, _VARIANTS + 3):
            made = composed.row(photo, variant)
            for name, (rows, columns) in _PLACES.items():
                centre = made.images[4 * (rows.start + rows.stop), 4 * (columns.start + columns.stop)].float().mean()
                # the donor's darkness below its own surroundings, under those of this photo
                giver = int(made.donors) if made.mixed[REGION_NAMES.index(name)] else photo
                expected = np.clip(20 * giver - (100 + 10 * giver) + 100 + 10 * photo, 0, 255)
                assert abs(float(centre) - expected) < 12, (photo, variant, name)
                seen.add((name, bool(made.mixed[REGION_NAMES.index(name)])))
            assert torch.equal(made.images[0], targets.images[photo, 0, 0])
    assert seen == {(name, mixed) for name in _PLACES for mixed in (True, False)}


def test_the_expression_is_that_of_the_mouth(targets: Targets) -> None:
    composed = with_composites(targets, variants=4, seed=1)
    for photo in range(_PHOTOS):
        for variant in range(_VARIANTS, _VARIANTS + 4):
            made = composed.row(photo, variant)
            giver = int(made.donors) if made.mixed[REGION_NAMES.index("mouth")] else photo
            assert int(made.words[1]) == 1 + giver % (len(EXPRESSIONS) - 1)


def test_the_same_seed_gives_the_same_composites_and_none_are_asked_for(targets: Targets) -> None:
    first, second = (with_composites(targets, variants=2, seed=5) for _ in range(2))
    assert all(torch.equal(getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    assert with_composites(targets, variants=0, seed=5) is targets


@pytest.fixture
def sampler(targets: Targets) -> StoreSampler:
    composed = with_composites(targets, variants=2, seed=0)
    generator, size = torch.Generator().manual_seed(5), (_PHOTOS, 2)
    references = References(
        identity=torch.randn(*size, 128, generator=generator),
        whole=torch.randn(*size, 64, 448, generator=generator),
        regions=torch.randn(*size, 5, 64, 448, generator=generator),
        present=torch.ones(*size, 5, dtype=torch.bool),
    )
    return StoreSampler(
        latents=torch.randn(_PHOTOS, 4, 8, 16, 16, generator=generator),
        targets=composed,
        references=references,
        persons=torch.arange(_PHOTOS),
        tokenize=facial_prompt_tokenizer(CLIPTokenizer.from_pretrained("src/consistentid/embedded/tokenizer")),
        composites=1.0,
        without_caption=0.0,
    )


def test_a_composite_is_shown_with_its_donors_regions(sampler: StoreSampler) -> None:
    batch = sampler.draw(12, torch.Generator().manual_seed(0))
    people = sampler.references
    for row in range(12):
        photo, variant = (int(one) for one in (sampler.latents == batch.latents[row]).flatten(2).all(2).nonzero()[0])
        assert variant >= sampler.targets.plain
        assert torch.equal(batch.told.identity[row], people.identity[photo, 0])
        for region in range(len(REGION_NAMES)):
            mixed = bool(sampler.targets.mixed[photo, variant, region])
            giver = int(sampler.targets.donors[photo, variant]) if mixed else photo
            given = batch.region_features[row, region]
            assert any(torch.equal(given, people.regions[giver, view, region]) for view in range(2))
            assert torch.equal(batch.told.regions[row, region], people.identity[giver, 0])


def test_without_composites_only_plain_targets_are_drawn(sampler: StoreSampler) -> None:
    batch = replace(sampler, composites=0.0).draw(12, torch.Generator().manual_seed(0))
    plain = sampler.latents[:, : sampler.targets.plain].flatten(0, 1)
    assert all(any(torch.equal(one, other) for other in plain) for one in batch.latents)


def test_regions_are_to_look_as_their_owners(sampler: StoreSampler) -> None:
    shape = (_PHOTOS, 2, len(REGION_NAMES))
    embeddings = torch.arange(_PHOTOS * 2).view(_PHOTOS, 2, 1, 1).expand(*shape, 3)  # says whose, and which side
    looks = RegionLooks(embeddings, torch.ones(*shape, 4), torch.ones(shape, dtype=torch.bool))
    batch = replace(sampler, looks=looks, strangers=0.5, mixed=1.0).draw(24, torch.Generator().manual_seed(0))
    people = {tuple(row.tolist()): index for index, row in enumerate(sampler.references.identity[:, 0])}
    mouth, mixed = REGION_NAMES.index("mouth"), batch.told.mixed
    for row in range(24):
        for region in range(len(REGION_NAMES)):
            owner = people.get(tuple(batch.told.regions[row, region].tolist()))
            if owner is None:  # a blend of two people looks like nobody
                assert not batch.looks.known[row, region]
            else:
                assert int(batch.looks.embeddings[row, region, 0]) // 2 == owner
    assert mixed[batch.stranger].any()
    assert not batch.looks.known[:, mouth].all()
    assert batch.looks.known[~batch.stranger][:, mouth].any()


@pytest.mark.slow
def test_the_prior_knows_what_regions_look_like_from_plain_targets(sampler: StoreSampler) -> None:
    latents = sampler.latents.clone()
    latents[:, sampler.targets.plain :] = torch.nan
    prior = fit_prior(sampler.targets, sampler.references, latents, appearance=True)
    told = sampler.draw(4, torch.Generator().manual_seed(0)).told
    assert told is not None
    assert prior.expected(told).isfinite().all()
    hidden = replace(told, appears=torch.zeros_like(told.appears))
    moved = (prior.expected(told) - prior.expected(hidden)).view(-1, 8, 16, 16).abs().amax((0, 1)) > 0
    shown = sampler.targets.regions[:, : sampler.targets.plain].any((0, 1))
    assert moved.any()
    eyes = torch.arange(len(REGION_NAMES)) == REGION_NAMES.index("eyes")
    assert not torch.equal(prior.expected(told), prior.expected(replace(told, appears=told.appears & ~eyes)))
    assert not moved[~shown.any(0)].any()
    assert torch.equal(prior.expected(hidden), prior.regression.expected(told))
