"""The identity loss, with the real autoencoder and recogniser on the sample photos."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from consistentid.faces.crops import Square, crop_square
from consistentid.faces.detection import DetectedFace, DlibDetector
from consistentid.generation.loading import embedded_folder
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.images import load_photo
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.prediction import TrainingModels
from consistentid.training.recognition import Recognition
from consistentid.training.step import draw_step, training_step
from consistentid.training.step_config import StepConfig

_SIZE = 128
_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}


@pytest.fixture(scope="module")
def faces(sample_photos: dict[str, Path]) -> list[tuple[np.ndarray, DetectedFace]]:
    """Both sample photos and the face in each."""
    photos = [np.asarray(load_photo(path).reduce(2)) for path in sample_photos.values()]
    return [(photo, DlibDetector().detect(photo)[0]) for photo in photos]


@pytest.fixture(scope="module")
def latents(faces: list[tuple[np.ndarray, DetectedFace]], recognition: Recognition) -> torch.Tensor:
    """The faces as the U-Net is trained on them."""
    crops = [crop_square(Image.fromarray(photo), Square.on_face(face.landmarks), _SIZE) for photo, face in faces]
    pixels = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        return recognition.autoencoder.encode(pixels).latents * recognition.autoencoder.config.scaling_factor


@pytest.fixture(scope="module")
def recognition(faces: list[tuple[np.ndarray, DetectedFace]]) -> Recognition:
    """Of the model in the package."""
    autoencoder = AutoencoderTiny.from_pretrained(embedded_folder() / "vae", torch_dtype=torch.float32)
    points = [Square.on_face(face.landmarks).points(face.landmarks, _SIZE) for _, face in faces]
    return Recognition(
        autoencoder.eval().requires_grad_(False),
        DlibImageEncoder(),
        torch.from_numpy(np.mean(points, 0)).float(),
    )


def test_it_tells_who_is_seen(
    faces: list[tuple[np.ndarray, DetectedFace]], latents: torch.Tensor, recognition: Recognition
) -> None:
    people = torch.from_numpy(np.stack([face.identity_embedding for _, face in faces])).float()
    pictures = recognition.pictures(latents)
    for jitter in (torch.zeros(2, 3), torch.ones(2, 3)):
        own = recognition.distance(pictures, people, jitter)
        assert float(own) < 0.25
        assert float(recognition.distance(pictures, people.flip(0), jitter)) > float(own) + 0.2


def test_latents_follow_it(
    faces: list[tuple[np.ndarray, DetectedFace]], latents: torch.Tensor, recognition: Recognition
) -> None:
    other = torch.from_numpy(faces[1][1].identity_embedding).float()[None]
    changed = latents[:1].clone().requires_grad_()
    distances = []
    for _ in range(3):
        distance = recognition.distance(recognition.pictures(changed), other, torch.zeros(1, 3))
        (gradient,) = torch.autograd.grad(distance, changed)
        changed = (changed - 0.1 * gradient.sign()).detach().requires_grad_()
        distances.append(float(distance.detach()))
    assert distances[2] < distances[0] - 0.05


def test_nobody_is_at_no_distance(recognition: Recognition) -> None:
    none = torch.zeros(0, 8, 16, 16, requires_grad=True)
    distance = recognition.distance(recognition.pictures(none), torch.zeros(0, 128), torch.zeros(0, 3))
    distance.backward()
    assert float(distance.detach()) == 0


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_step_asks_it_of_what_can_be_seen(
    models: TrainingModels, sampler: StoreSampler, recognition: Recognition, share: float
) -> None:
    config = StepConfig(**_KEEP_ALL, identity_weight=1, stranger_from=0.8, localisation_weight=0)
    batch = replace(sampler, strangers=0.5).draw(4, torch.Generator().manual_seed(0))
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, torch.Generator().manual_seed(1), config=config)
    draws = replace(draws, timesteps=torch.full((4,), int(1000 * share)))
    models = replace(models, recognition=recognition)
    moved = [row.clone() for row in (batch.told.identity, batch.told.identity)]
    for people, chosen in zip(moved, (batch.stranger, ~batch.stranger), strict=True):
        people[chosen] += 1
    with torch.no_grad():
        usual, strangers, own = (
            training_step(models, replace(batch, told=replace(batch.told, identity=people)), draws, config=config)
            for people in (batch.told.identity, *moved)
        )
    assert torch.allclose(usual.total, usual.noise + usual.identity)
    assert (not torch.equal(usual.identity, own.identity)) == (share < 0.98)
    assert (not torch.equal(usual.identity, strangers.identity)) == (0.8 < share < 0.98)


def test_its_gradients_reach_the_adapter(
    models: TrainingModels, sampler: StoreSampler, recognition: Recognition
) -> None:
    config = StepConfig(**_KEEP_ALL, identity_weight=1, localisation_weight=0)
    batch = sampler.draw(2, torch.Generator().manual_seed(0))
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, torch.Generator().manual_seed(1), config=config)
    draws = replace(draws, timesteps=torch.full((2,), 500))
    models.unet.zero_grad()
    training_step(replace(models, recognition=recognition), batch, draws, config=config).identity.backward()
    for group in ("projector", "kv"):
        parameters = models.adapter.parameters_by_group()[group].values()
        assert any(one.grad is not None and one.grad.any() for one in parameters), group
