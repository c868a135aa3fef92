"""What a region's token alone must change."""

from dataclasses import replace

import pytest
import torch

from consistentid.dataset.samples import Told
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import Losses
from consistentid.training.omission import chosen, spilt
from consistentid.training.prediction import TrainingModels
from consistentid.training.region_appearance import RegionAppearance
from consistentid.training.step import draw_step, training_step
from consistentid.training.step_config import StepConfig

_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}
_CONFIG = StepConfig(**_KEEP_ALL, localisation_weight=0, omission_weight=1, omissions=3)
_FACE, _EARS, _MOUTH = (REGION_NAMES.index(name) for name in ("face", "ears", "mouth"))


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
    assert {REGION_NAMES[region] for region in regions} <= set(REGION_NAMES) - {"mouth"}
    many = torch.rand(200, len(REGION_NAMES), generator=torch.Generator().manual_seed(1))
    _, regions = chosen(torch.ones_like(many, dtype=torch.bool), many, count=200)
    assert {REGION_NAMES[region] for region in regions} == set(REGION_NAMES)
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


def test_changes_in_the_place_of_other_regions_are_spilt() -> None:
    masks = torch.zeros(3, len(REGION_NAMES), 4, 4)
    masks[:, _FACE], masks[:, _MOUTH, 3, 1:3], masks[:, _EARS, 1, 0] = 1, 1, 1
    masks[:, _FACE, :, 0] = 0
    change = torch.zeros(3, 8, 4, 4)
    change[:, :, 3, 1] = change[:, :, 1, 0] = 1  # mouth, ear
    change[:, :, 0, 1], change[:, :, 0, 0] = 2, 100  # skin, hair
    found = spilt(change, masks, torch.tensor([_MOUTH, _FACE, _EARS]))
    assert found.tolist() == pytest.approx([5 / 6, 2 / 6, 5 / 6])


def test_the_place_is_asked_of_the_face_as_well_if_of_any(taught: TrainingModels, sampler: StoreSampler) -> None:
    only_faces = _CONFIG.model_copy(update={"spill_weight": 2.0})
    order = torch.zeros(4, len(REGION_NAMES))
    order[:, _FACE] = 1
    with torch.no_grad():
        usual, asked = (_losses(taught, sampler, config, order) for config in (_CONFIG, only_faces))
    assert usual.spill is None
    assert float(asked.omission) == 0 < float(asked.spill) <= 1.5
    assert torch.allclose(asked.total, asked.noise + 2 * asked.spill)
    assert float(usual.omission) == 0  # nothing is left out but the face


@pytest.mark.parametrize("alone", [{"omissions": 2}, {"omission_weight": 1.0}])
def test_weight_and_number_go_together(alone: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="omissions and omission_weight go together"):
        StepConfig(**_KEEP_ALL, **alone)


def test_spill_needs_omissions() -> None:
    with pytest.raises(ValueError, match="spill_weight needs predictions without a region"):
        StepConfig(**_KEEP_ALL, spill_weight=1.0)


def _omission(models: TrainingModels, sampler: StoreSampler) -> torch.Tensor:
    found = _losses(models, sampler, _CONFIG).omission
    assert found is not None
    return found


def _losses(
    models: TrainingModels, sampler: StoreSampler, config: StepConfig, order: torch.Tensor | None = None
) -> Losses:
    generator = torch.Generator().manual_seed(1)
    batch = replace(sampler, without_caption=0).draw(4, generator)
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, generator, config=config)
    return training_step(models, batch, draws if order is None else replace(draws, omission=order), config=config)


def test_a_mouth_says_what_the_text_does_not(taught: TrainingModels) -> None:
    words = torch.tensor([[0, 2, 1], [1, 0, 0], [0, 0, 0]])
    mouth = torch.tensor([[1, 0, 0], [2, 0, 0], [2, 0, 0]])
    told = replace(Told.of_people(torch.zeros(3, 4), words, regions=len(REGION_NAMES)), mouth_words=mouth)
    kept = draw_step((3, 8, 16, 16), taught.scheduler, torch.Generator().manual_seed(0), config=_CONFIG).kept
    assert kept.told(told).words.tolist() == [[1, 2, 1], [1, 0, 0], [2, 0, 0]]
    mute = replace(kept, regions=kept.regions & (torch.arange(len(REGION_NAMES)) != _MOUTH))
    assert mute.told(told).words.tolist() == words.tolist()
