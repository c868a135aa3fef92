"""Eq. 1 against the release's numbers and a brute-force version; the noise loss and its weights."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from consistentid.training.losses import localisation_loss, min_snr_weights, noise_losses, share_loss, signal_to_noise


def test_localisation_loss_equals_brute_force() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(2, 3, 16, 5, generator=generator)
    masks = (torch.rand(2, 5, 16, generator=generator) > 0.5).float()
    valid = torch.tensor([[True, False, True, True, False], [True, True, False, False, False]])
    totals = []
    for sample in range(2):
        for head in range(3):
            regions = []
            for region in range(5):
                if valid[sample, region]:
                    p = maps[sample, head, :, region]
                    p = p / (p.max() + 1e-5)
                    m = masks[sample, region].bool()
                    regions.append(p[~m].mean() - p[m].mean())
            totals.append(torch.stack(regions).mean())
    assert torch.allclose(localisation_loss(maps, masks, valid), torch.stack(totals).view(2, 3).mean(1), atol=1e-6)


def test_localisation_loss_falls_when_attention_moves_inside() -> None:
    masks = torch.zeros(1, 1, 16)
    masks[..., :4] = 1
    valid = torch.ones(1, 1, dtype=torch.bool)
    inside = masks[:, :, :, None].expand(1, 1, 16, 1).clone()
    assert localisation_loss(inside, masks, valid) < localisation_loss(1 - inside, masks, valid)


def test_samples_without_regions_add_nothing() -> None:
    loss = localisation_loss(torch.rand(2, 2, 16, 5), torch.rand(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool))
    assert not loss.any()


def test_a_token_is_to_get_its_share_of_the_attention_in_its_region() -> None:
    masks = torch.zeros(1, 2, 16)
    masks[:, 0, :4], masks[:, 1, 8:] = 1, 1
    maps = torch.zeros(1, 1, 16, 2)
    maps[:, :, :4, 0], maps[:, :, 8:, 1] = 0.5, 0.01
    both, first = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    assert float(share_loss(maps, masks, first)) == 0
    assert float(share_loss(maps, masks, both)) == pytest.approx(np.log(40) / 2, rel=1e-4)
    assert not localisation_loss(maps, masks, both).allclose(localisation_loss(maps * 0, masks, both))
    assert not share_loss(maps, masks, ~(both | first)).any()


def test_noise_loss_looks_at_the_mask_only() -> None:
    target = torch.zeros(1, 4, 4, 4)
    prediction = torch.zeros_like(target)
    prediction[..., 2:, :] = 3.0
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    assert float(noise_losses(prediction, target, mask)) == 0
    assert float(noise_losses(prediction, target, torch.ones_like(mask))) == pytest.approx(4.5)


def test_min_snr_weights_are_finite_at_zero_terminal_snr() -> None:
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    snr = signal_to_noise(scheduler, torch.tensor([0, 500, 999]))
    weights = min_snr_weights(snr, prediction_type="v_prediction")
    assert snr[-1] == 0
    assert torch.isfinite(weights).all()
    assert torch.allclose(weights, torch.minimum(snr, torch.tensor(5.0)) / (snr + 1))
