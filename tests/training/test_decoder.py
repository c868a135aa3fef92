"""The decoder's stage: latents stay, regions count most, and what is learnt is in the decoder alone."""

import pytest
import torch
from diffusers import AutoencoderTiny

from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.decoder import DecoderTask, _counts, _some_detail
from consistentid.training.embedded.latents import encode
from consistentid.training.share import Share

_SIZE, _LATENT = 64, 8
_POINTS = torch.tensor([[22.0, 24], [42, 24], [32, 34], [25, 42], [39, 42]])


@pytest.fixture
def task() -> DecoderTask:
    torch.manual_seed(0)
    channels = (16, 16, 16, 16)
    model = AutoencoderTiny(latent_channels=8, encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    model.requires_grad_(False).decoder.requires_grad_(True)
    images = torch.randint(0, 256, (3, 2, _SIZE, _SIZE, 3), dtype=torch.uint8)
    latents = encode(model, images.flatten(0, 1)).unflatten(0, (3, 2)).half()
    regions = torch.zeros(3, 2, len(REGION_NAMES), _LATENT, _LATENT, dtype=torch.bool)
    regions[:, :, REGION_NAMES.index("face")] = True
    regions[:, :, REGION_NAMES.index("eyes"), 3, 2:6] = True
    return DecoderTask(model, images, latents, regions, _POINTS, DlibImageEncoder().network, batch_size=2)


def test_every_loss_reaches_the_decoder_and_nothing_else(task: DecoderTask) -> None:
    for name, loss in task.losses(Share(0, 0)).items():
        task.autoencoder.zero_grad()
        loss.backward(retain_graph=True)
        found = [one.grad for one in task.autoencoder.decoder.parameters() if one.grad is not None]
        assert any(one.abs().sum() > 0 for one in found), name
    assert all(one.grad is None for one in task.autoencoder.encoder.parameters())


def test_a_share_draws_the_same_again(task: DecoderTask) -> None:
    first, again, other = (task.losses(Share(0, step))["loss"].item() for step in (3, 3, 4))
    assert first == again != other


def test_steps_bring_pictures_nearer(task: DecoderTask) -> None:
    optimiser = torch.optim.Adam(task.autoencoder.decoder.parameters(), lr=3e-3)
    found = []
    for _ in range(12):
        loss = task.losses(Share(0, 0))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert found[-1] < 0.9 * found[0]


def test_details_are_regions_that_are_shown() -> None:
    masks = torch.zeros(64, len(REGION_NAMES), 4, 4)
    masks[:, REGION_NAMES.index("face")] = 1
    masks[:, REGION_NAMES.index("eyes"), 1] = 1
    masks[:32, REGION_NAMES.index("mouth"), 3] = 1
    found = _some_detail(masks, torch.Generator().manual_seed(0))
    eyes, mouth = (REGION_NAMES.index(name) for name in ("eyes", "mouth"))
    assert set(found[:32].tolist()) == {eyes, mouth}
    assert set(found[32:].tolist()) == {eyes}


def test_pixels_of_details_count_most() -> None:
    masks = torch.zeros(1, len(REGION_NAMES), 4, 4)
    masks[:, REGION_NAMES.index("face"), 1:] = 1
    masks[:, REGION_NAMES.index("nose"), 2] = 1
    counts = _counts(masks)[0, 0, :, 0]
    torch.testing.assert_close(counts / counts[0], torch.tensor([1.0, 2.0, 5.0, 2.0]))
    torch.testing.assert_close(_counts(masks).mean(), torch.tensor(1.0))
