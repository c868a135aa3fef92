"""Images of regions are added to what a frozen copy of the models says."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.anchored import _STRANGER_FROM, AnchoredTask, Asked
from consistentid.training.embedded.config import AnchoredStage
from consistentid.training.embedded.diffusion import choose_trained, trained_modules
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.prediction import TrainingModels
from consistentid.training.region_appearance import RegionAppearance
from consistentid.training.share import Share

_LOOP = {"steps": 1, "learning_rate": 1e-3, "checkpoint_every": 1}
_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}
_EYES = REGION_NAMES.index("eyes")


def _stage(**changed: Any) -> AnchoredStage:
    values = {"loop": _LOOP, "train": ["facial_encoder"], "batch_size": 4, "drop": _KEEP_ALL, "shown": {"eyes": 1.0}}
    return AnchoredStage.model_validate(values | changed)


@pytest.fixture(scope="module")
def seen(prior: IdentityPrior) -> IdentityPrior:
    """With images that let expect something of every region but the face."""
    slope = 0.02 * torch.randn(len(REGION_NAMES), 4 * 448, 8 * 16 * 16, generator=torch.Generator().manual_seed(0))
    slope[REGION_NAMES.index("face")] = 0
    return replace(prior, appearance=RegionAppearance(torch.zeros(len(REGION_NAMES), 4 * 448), slope))


@pytest.fixture
def task(models: TrainingModels, sampler: StoreSampler, seen: IdentityPrior) -> AnchoredTask:
    choose_trained(models, ["facial_encoder"])
    return AnchoredTask(models, sampler, _stage(), seen)


def test_at_first_nothing_of_the_images_is_predicted(task: AnchoredTask) -> None:
    found = {name: loss.detach() for name, loss in task.losses(Share(0, 0)).items()}
    assert float(found["shown"]) == pytest.approx(0, abs=1e-4)
    assert float(found["loss"]) > 0
    task.stage = _stage(shown={})
    assert float(task.losses(Share(0, 0))["loss"].detach()) == pytest.approx(0, abs=1e-9)


def test_steps_show_the_images_and_leave_the_copy_alone(task: AnchoredTask) -> None:
    copy = {name: value.clone() for name, value in trained_modules(task.start)["unet"].state_dict().items()}
    encoder = task.start.adapter.facial_encoder
    tokens = [value.clone() for value in encoder.state_dict().values()]
    trained = [one for one in task.models.adapter.facial_encoder.parameters() if one.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=2e-3)
    losses = []
    for _ in range(4):
        loss = task.losses(Share(0, 0))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert float(task.losses(Share(0, 0))["shown"]) > 0
    assert all(torch.equal(value, copy[name]) for name, value in task.start.unet.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(encoder.state_dict().values(), tokens, strict=True))


def test_only_what_the_stage_names_is_added(task: AnchoredTask) -> None:
    batch = task.sampler.draw(4, Share(0, 0).generator())
    asked = Asked.draw(batch, torch.Generator().manual_seed(0), models=task.models, stage=task.stage)
    with_eyes = task._added(batch, asked)
    assert with_eyes.abs().sum() > 0
    without = asked.kept.regions.clone()
    without[:, _EYES] = False
    assert not task._added(batch, replace(asked, kept=replace(asked.kept, regions=without))).any()
    twice = replace(task, stage=_stage(shown={"eyes": 2.0}))._added(batch, asked)
    torch.testing.assert_close(twice, 2 * with_eyes, rtol=1e-3, atol=1e-4)
    assert not task._added(batch, replace(asked, weights=0 * asked.weights)).any()


def test_the_copy_is_not_told_regions_that_are_new(task: AnchoredTask) -> None:
    batch = task.sampler.draw(4, Share(0, 0).generator())
    kept = Asked.draw(batch, torch.Generator().manual_seed(0), models=task.models, stage=task.stage).kept
    assert torch.equal(task._known(kept).regions, kept.regions)
    task.stage = _stage(new=["eyes"])
    known = task._known(kept).regions
    others = torch.arange(len(REGION_NAMES)) != _EYES
    assert not known[:, _EYES].any()
    assert torch.equal(known[:, others], kept.regions[:, others])


def test_strangers_are_seen_in_high_noise_alone(task: AnchoredTask, sampler: StoreSampler) -> None:
    batch = replace(sampler, strangers=0.5).draw(16, torch.Generator().manual_seed(0))
    asked = Asked.draw(batch, torch.Generator().manual_seed(0), models=task.models, stage=task.stage)
    shares = asked.timesteps / task.models.scheduler.config.num_train_timesteps
    assert batch.stranger.sum() == 8
    assert (shares[batch.stranger] >= _STRANGER_FROM - 0.001).all()
    assert (shares[~batch.stranger] < _STRANGER_FROM - 0.001).any()


def test_a_share_draws_the_same_again(task: AnchoredTask) -> None:
    first, again, other = (float(task.losses(Share(0, step))["loss"].detach()) for step in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("wrong", [{"shown": {"chin": 1.0}}, {"new": ["chin"]}])
def test_unknown_regions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"unknown region 'chin'|Input should be 'face'"):
        _stage(**wrong)
