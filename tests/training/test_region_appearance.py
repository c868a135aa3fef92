"""What region images say about latents."""

import pytest
import torch

from consistentid.training.region_appearance import RegionAppearance, appearance_of

_PLACES = torch.zeros(2, 4, 4)
_PLACES[0, 0], _PLACES[1, 3] = 1, 1


def _fit(count: int = 400) -> tuple[RegionAppearance, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents made by a known map from the appearance of two regions; smiles move the first feature of both."""
    generator = torch.Generator().manual_seed(0)
    smiles = torch.rand(count, generator=generator) < 0.5
    appearance = torch.randn(count, 2, 6, generator=generator)
    appearance[..., 0] += 3 * smiles[:, None]
    slope = torch.randn(2, 6, 3, 4, 4, generator=generator)
    rest = torch.einsum("nrk,rkchw,rhw->nchw", appearance, slope, _PLACES)
    rest = rest + 0.1 * torch.randn(rest.shape, generator=generator)
    shown = torch.ones(count, 2, dtype=torch.bool)
    return RegionAppearance.fit(appearance, shown, rest, smiles=smiles, places=_PLACES), appearance, shown, rest, slope


def test_every_region_decides_its_own_place() -> None:
    found, _, _, _, slope = _fit()
    for region, place in enumerate(_PLACES):
        kept = found.slope[region].view(6, 3, 4, 4)
        assert not kept[:, :, place == 0].any()
        learnt, true = kept[1:, :, place > 0], slope[region, 1:][:, :, place > 0]
        assert torch.cosine_similarity(learnt.flatten(), true.flatten(), dim=0) > 0.95


def test_what_a_smile_changes_is_left_to_the_text() -> None:
    found, appearance, shown, *_ = _fit()
    smiling = appearance.clone()
    smiling[..., 0] += 3
    moved = (found.expected(smiling, shown) - found.expected(appearance, shown)).norm(dim=1).mean()
    other = appearance.clone()
    other[..., 3] += 3
    assert moved < 0.2 * (found.expected(other, shown) - found.expected(appearance, shown)).norm(dim=1).mean()


def test_hidden_regions_add_nothing_and_none_can_be_fitted_to_nobody() -> None:
    found, appearance, shown, rest, _ = _fit()
    assert not found.expected(appearance, torch.zeros_like(shown)).any()
    one = shown.clone()
    one[:, 1] = False
    assert not found.expected(appearance, one).view(-1, 3, 4, 4)[:, :, 3].any()
    smiles = torch.zeros(len(rest), dtype=torch.bool)
    nobody = RegionAppearance.fit(appearance, torch.zeros_like(shown), rest, smiles=smiles, places=_PLACES)
    assert not nobody.slope.any()


@pytest.mark.parametrize("shape", [(3, 64, 5), (2, 3, 64, 5)])
def test_appearance_is_the_mean_over_quarters_of_the_image(shape: tuple[int, ...]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = appearance_of(features)
    assert found.shape == (*shape[:-2], 20)
    first = features.reshape(-1, 8, 8, 5)[0]
    assert torch.allclose(found.reshape(-1, 5, 2, 2)[0, :, 0, 1], first[:4, 4:].mean((0, 1)), atol=1e-6)
