"""What a region's token alone must change."""

from dataclasses import replace

import pytest
import torch

from consistentid.dataset.samples import Told
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.omission import chosen
from consistentid.training.prediction import TrainingModels
from consistentid.training.region_appearance import RegionAppearance
from consistentid.training.step import draw_step, training_step
from consistentid.training.step_config import StepConfig

_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}
_CONFIG = StepConfig(**_KEEP_ALL, localisation_weight=0, omission_weight=1, omissions=3)
_MOUTH = REGION_NAMES.index("mouth")


@pytest.fixture(scope="module")
def taught(models: TrainingModels, prior: IdentityPrior) -> TrainingModels:
    """With a prior that knows, of all regions but the face, what their images show."""
    slope = 0.1 * torch.randn(len(REGION_NAMES), 4 * 448, 8 * 16 * 16, generator=torch.Generator().manual_seed(0))
    slope[REGION_NAMES.index("face")] = 0
    appearance = RegionAppearance(torch.zeros(len(REGION_NAMES), 4 * 448), slope)
    return replace(models, prior=replace(prior, appearance=appearance))


def test_only_what_may_be_is_left_out_of_as_many_samples_as_asked() -> None:
    order = torch.rand(6, len(REGION_NAMES), generator=torch.Generator().manual_seed(0))
    allowed = torch.ones_like(order, dtype=torch.bool)
    allowed[:, _MOUTH] = False
    allowed[2:] = False
    rows, regions = chosen(allowed, order, count=5)
    assert sorted(rows.tolist()) == [0, 1]
    assert {REGION_NAMES[region] for region in regions} <= {"ears", "eyes", "nose"}
    many = torch.rand(200, len(REGION_NAMES), generator=torch.Generator().manual_seed(1))
    _, regions = chosen(torch.ones_like(many, dtype=torch.bool), many, count=200)
    assert {REGION_NAMES[region] for region in regions} == set(REGION_NAMES) - {"face"}
    assert len(chosen(torch.ones_like(allowed), order, count=3)[0]) == 3
    assert not len(chosen(torch.zeros_like(allowed), order, count=3)[0])


def test_tokens_that_change_nothing_lose_all_that_the_prior_expects(
    taught: TrainingModels, sampler: StoreSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taught.adapter.facial_encoder, "forward", lambda text, *_: text)
    with torch.no_grad():
        assert float(_omission(taught, sampler)) == pytest.approx(1, abs=1e-3)


def test_training_tells_regions_whole_whatever_their_strength(
    taught: TrainingModels, sampler: StoreSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        whole = _omission(taught, sampler)
        weak = taught.adapter.config.model_copy(update={"region_strength": {"mouth": 0.25, "nose": 0.25}})
        monkeypatch.setattr(taught.adapter, "config", weak)
        assert torch.equal(_omission(taught, sampler), whole)


def test_tokens_learn_from_it(taught: TrainingModels, sampler: StoreSampler) -> None:
    encoder = taught.adapter.facial_encoder
    encoder.zero_grad()
    found = _omission(taught, sampler)
    found.backward()
    assert any(one.grad is not None and one.grad.any() for one in encoder.parameters())


@pytest.mark.parametrize("alone", [{"omissions": 2}, {"omission_weight": 1.0}])
def test_weight_and_number_go_together(alone: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="omissions and omission_weight go together"):
        StepConfig(**_KEEP_ALL, **alone)


def _omission(models: TrainingModels, sampler: StoreSampler) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    batch = replace(sampler, without_caption=0).draw(4, generator)
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, generator, config=_CONFIG)
    found = training_step(models, batch, draws, config=_CONFIG).omission
    assert found is not None
    return found


def test_a_mouth_says_what_the_text_does_not(taught: TrainingModels) -> None:
    words = torch.tensor([[0, 2, 1], [1, 0, 0], [0, 0, 0]])
    mouth = torch.tensor([[1, 0, 0], [2, 0, 0], [2, 0, 0]])
    told = replace(Told.of_people(torch.zeros(3, 4), words, regions=len(REGION_NAMES)), mouth_words=mouth)
    kept = draw_step((3, 8, 16, 16), taught.scheduler, torch.Generator().manual_seed(0), config=_CONFIG).kept
    assert kept.told(told).words.tolist() == [[1, 2, 1], [1, 0, 0], [2, 0, 0]]
    mute = replace(kept, regions=kept.regions & (torch.arange(len(REGION_NAMES)) != _MOUTH))
    assert mute.told(told).words.tolist() == words.tolist()
