"""The autoencoder's stage: where the landmarks of a cut-out face are, and what the recogniser thinks of it."""

import pytest
import torch
from diffusers import AutoencoderTiny

from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.autoencoder import AutoencoderTask, identity_distance, random_squares
from consistentid.training.share import Share

_SIDE, _SIZE = 96, 64
_POINTS = torch.tensor([[38.0, 40], [58, 40], [48, 50], [41, 58], [55, 58]])


def test_landmarks_follow_the_square() -> None:
    photos = torch.zeros(1, _SIDE, _SIDE, 3, dtype=torch.uint8)
    for x, y in _POINTS.long().tolist():
        photos[0, y - 1 : y + 2, x - 1 : x + 2] = 255
    images, landmarks = random_squares(photos, _POINTS[None], 16, _SIZE, torch.Generator().manual_seed(0))
    brightness = images.mean(1) / 2 + 0.5
    seen = 0
    for image, points in zip(brightness, landmarks, strict=True):
        for x, y in points.round().long().tolist():
            if 0 < x < _SIZE - 1 and 0 < y < _SIZE - 1:
                assert image[y - 1 : y + 2, x - 1 : x + 2].max() > 0.5
                seen += 1
    assert seen > 40  # of 16 x 5
    assert (landmarks[:, 0, 0] < landmarks[:, 1, 0]).all()  # the viewer's left eye stays the left one


@pytest.fixture
def task() -> AutoencoderTask:
    torch.manual_seed(0)
    channels = (16, 16, 16, 16)
    model = AutoencoderTiny(latent_channels=8, encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    photos = torch.randint(0, 256, (2, _SIDE, _SIDE, 3), dtype=torch.uint8)
    network = DlibImageEncoder().network
    return AutoencoderTask(model, photos, _POINTS.expand(2, -1, -1), network, size=_SIZE, batch_size=2)


def test_the_recogniser_sees_no_difference_between_equal_images(task: AutoencoderTask) -> None:
    images = torch.rand(2, 3, _SIZE, _SIZE) * 2 - 1
    points = _POINTS.expand(2, -1, -1) * (_SIZE / _SIDE)
    same = identity_distance(task.recogniser, images, images, points, torch.Generator().manual_seed(0))
    other = identity_distance(task.recogniser, images.flip(0), images, points, torch.Generator().manual_seed(0))
    assert same == 0
    assert other > 0.01


def test_the_identity_term_reaches_encoder_and_decoder(task: AutoencoderTask) -> None:
    losses = task.losses(Share(0, 0))
    losses["identity"].backward()
    for part in (task.autoencoder.encoder, task.autoencoder.decoder):
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())
