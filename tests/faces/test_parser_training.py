"""The parser's training task: views, augmentation, a few real steps."""

from types import ModuleType

import numpy as np
import pytest
import torch

from consistentid.faces.regions import LEFT_EAR, LEFT_EYE, NOSE, RIGHT_EYE
from consistentid.training.embedded.parser import ParserTask, augment, new_parser
from consistentid.training.share import Share


@pytest.fixture(scope="module")
def task(parity_inputs: ModuleType) -> ParserTask:
    photo, label_map, _ = parity_inputs.face_inputs(128)
    noseless = np.where(label_map == NOSE, 1, label_map).astype(np.uint8)
    torch.manual_seed(0)
    return ParserTask(
        new_parser(),
        torch.from_numpy(np.stack([photo] * 3)),
        torch.from_numpy(np.stack([label_map, noseless, label_map])),
        batch_size=2,
    )


def test_the_parser_is_small(task: ParserTask) -> None:
    parameters = sum(parameter.numel() for parameter in task.parser.parameters())
    assert 0.9e6 < parameters < 1.1e6


def test_faces_without_landmarks_are_left_out(task: ParserTask) -> None:
    indices, views = task._views
    assert indices.tolist() == [0, 2]
    assert views.shape == (2, 2, 3)


def test_views_show_the_eyes_where_alignment_puts_them_on_either_side(task: ParserTask) -> None:
    indices, views = (part.repeat_interleave(16, 0) for part in task._views)
    batch = augment(
        task.photos[indices], task.label_maps[indices], views, size=96, generator=torch.Generator().manual_seed(1)
    )
    assert batch.photos.shape == (32, 5, 96, 96)
    assert batch.label_maps.shape == (32, 96, 96)
    centres = []
    for label_map in batch.label_maps:
        left, right = (torch.argwhere(label_map == label).float() for label in (LEFT_EYE, RIGHT_EYE))
        if len(left) and len(right):
            assert left[:, 1].mean() < right[:, 1].mean()  # also in mirrored views
            centres.append((left.mean(0) + right.mean(0)) / 2)
    assert len(centres) > 20
    expected = torch.tensor([0.5 + (0.3142 - 0.5) * 0.6, 0.5 + (0.4933 - 0.5) * 0.6]) * 96
    assert (torch.stack(centres).mean(0) - expected).abs().max() < 4
    assert (batch.label_maps == LEFT_EAR).any()


def test_the_same_generator_gives_the_same_losses_and_they_fall(task: ParserTask) -> None:
    def loss(seed: int) -> torch.Tensor:
        return task.losses(Share(seed, 0))["loss"]

    assert torch.equal(loss(3), loss(3))
    optimizer = torch.optim.AdamW(task.parser.parameters(), lr=2e-3)
    before = float(loss(3).detach())
    for step in range(6):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert float(loss(3).detach()) < before
