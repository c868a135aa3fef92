"""The loss that compares regions, with the real autoencoder and recogniser on the sample photos."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image, ImageFilter
from transformers import SegformerForSemanticSegmentation

from consistentid.dataset.samples import Looks
from consistentid.evaluation.embedders import cosine
from consistentid.evaluation.fgis import region_crops
from consistentid.evaluation.judge import Judge
from consistentid.faces.analysis import FaceAnalyzer
from consistentid.faces.crops import Square, crop_square
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.loading import embedded_folder
from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.looks import RegionLooks, boxes_of, measured_looks
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.face_chips import region_chips
from consistentid.training.outlines import Outlines, squares_around
from consistentid.training.prediction import TrainingModels
from consistentid.training.recognition import Recognition
from consistentid.training.step import draw_step, training_step
from consistentid.training.step_config import StepConfig

_SIZE = 128
_KEEP_ALL = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}
_STILL = torch.zeros(2, 3)
_EACH = torch.arange(2)
_SEEN = [REGION_NAMES.index(name) for name in ("eyes", "nose", "mouth")]


@pytest.fixture(scope="module")
def crops(sample_photos: dict[str, Path]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Both sample photos as the U-Net is trained on them: picture, label map and landmarks."""
    analyzer, found = FaceAnalyzer.from_pretrained(embedded_folder()), []
    for path in sample_photos.values():
        face = analyzer.analyze(path)
        square = Square.on_face(face.landmarks)
        labels = Image.fromarray(face.label_map)
        pair = crop_square(face.image, square, _SIZE), crop_square(labels, square, _SIZE, nearest=True)
        found.append((*map(np.asarray, pair), square.points(face.landmarks, _SIZE)))
    return found


@pytest.fixture(scope="module")
def pictures(crops: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([photo for photo, _, _ in crops])).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def recognition(crops: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Recognition:
    autoencoder = AutoencoderTiny.from_pretrained(embedded_folder() / "vae", torch_dtype=torch.float32)
    landmarks = torch.from_numpy(np.mean([points for _, _, points in crops], 0)).float()
    parser = SegformerForSemanticSegmentation.from_pretrained(embedded_folder() / "parser", dtype=torch.float32)
    outlines = Outlines(parser.requires_grad_(False))
    return Recognition(autoencoder.eval().requires_grad_(False), DlibImageEncoder(), landmarks, outlines)


@pytest.fixture(scope="module")
def latents(pictures: torch.Tensor, recognition: Recognition) -> torch.Tensor:
    with torch.no_grad():
        return recognition.autoencoder.encode(pictures * 2 - 1).latents * recognition.autoencoder.config.scaling_factor


@pytest.fixture(scope="module")
def looks(
    crops: list[tuple[np.ndarray, np.ndarray, np.ndarray]], latents: torch.Tensor, recognition: Recognition
) -> RegionLooks:
    """Of both people, and of their mirrored images."""
    boxes = torch.stack([boxes_of(labels, points).expand(2, -1, -1) for _, labels, points in crops])
    return measured_looks(boxes, torch.stack([latents, latents.flip(3)], 1), recognition)


def test_regions_are_cut_out_as_by_fgis(
    crops: list[tuple[np.ndarray, np.ndarray, np.ndarray]], pictures: torch.Tensor, looks: RegionLooks
) -> None:
    for person, (photo, labels, points) in enumerate(crops):
        expected = region_crops(photo, labels, points)
        for region in _SEEN[1:]:
            box = looks.boxes[[person], 0, region]
            found = region_chips(pictures[[person]], torch.from_numpy(points)[None], box, _STILL[:1])[0].permute(
                1, 2, 0
            )
            wanted = np.asarray(expected[REGION_NAMES[region]])
            inner = Image.fromarray(wanted.any(2)).filter(ImageFilter.MinFilter(9))
            assert np.abs(255 * found.numpy() - wanted)[np.asarray(inner)].mean() < 20  # FGIS cuts at whole pixels


def test_outlines_are_those_of_fgis(
    crops: list[tuple[np.ndarray, np.ndarray, np.ndarray]], pictures: torch.Tensor, recognition: Recognition
) -> None:
    judge = Judge.embedded(embedded_folder())
    for (photo, _, _), picture in zip(crops, pictures, strict=True):
        wanted, found = judge.measure(Image.fromarray(photo)).regions, judge.detector.detect(photo)
        seeing = replace(recognition, landmarks=torch.from_numpy(found[0].landmarks))
        of = torch.zeros(len(REGION_NAMES), dtype=torch.long), torch.arange(len(REGION_NAMES))
        embedded, seen = seeing.outlined_embeddings(picture[None], *of, torch.zeros(len(REGION_NAMES), 3))
        assert {name for name, one in zip(REGION_NAMES, seen, strict=True) if one} == set(wanted)
        for name, one in zip(REGION_NAMES, embedded.numpy(), strict=True):
            assert name not in wanted or cosine(one, wanted[name]) > 0.85, name


def test_edges_of_outlines_have_gradients(pictures: torch.Tensor, recognition: Recognition) -> None:
    shown = pictures[:1].clone().requires_grad_()
    landmarks, nose = recognition.landmarks[None], torch.tensor([REGION_NAMES.index("nose")])
    chips, _ = recognition.outlines.chips(shown, landmarks, _EACH[:1], nose, _STILL[:1])
    chips.sum().backward()
    assert shown.grad is not None
    assert shown.grad.abs().sum() > 1.1 * (chips > 0).sum()  # 1 for each pixel inside, and the edge's


def test_squares_lie_around_masks() -> None:
    masks = torch.zeros(2, 100, 100, dtype=torch.bool)
    masks[0, 20:40, 50:60] = True
    squares, seen = squares_around(masks)
    assert torch.allclose(squares, torch.tensor([[0.1, -0.4, 0.22], [0, 0, 1]]))
    assert seen.tolist() == [True, False]


def test_one_eye_is_looked_at_with_what_is_around_it(
    crops: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    for _, labels, points in crops:
        eyes, nose = (boxes_of(labels, points)[REGION_NAMES.index(name)] for name in ("eyes", "nose"))
        assert eyes[2] == eyes[3]
        assert abs(eyes[0] - nose[0]) > 0.1  # left or right of the nose
        assert eyes[2] < 0.5


@pytest.mark.parametrize("outlined", [False, True])
def test_it_tells_whose_region_is_seen(
    latents: torch.Tensor, recognition: Recognition, looks: RegionLooks, outlined: bool
) -> None:
    judge, pictures = replace(recognition, spread=looks.spread), recognition.pictures(latents)
    for region in _SEEN:
        both = _both(region, outlined=outlined)
        own, other = (
            judge.region_distances(pictures, _EACH, _looks(looks, people), *both, _STILL).mean()
            for people in ((0, 1), (1, 0))
        )
        assert float(own) < (0.1 if outlined else 0.05)  # where the parser draws the line varies with rounding
        assert float(other) > 0.5


def test_distances_are_shares_of_that_to_the_mean_over_people() -> None:
    embeddings = torch.eye(2)[:, None, None, None].repeat(1, 1, 1, 2, 1)  # two people, one region, at right angles
    embeddings[:, :, :, 1] = 1  # whose outlines are alike
    spread = RegionLooks(embeddings.half(), torch.zeros(2, 1, 1, 4), torch.ones(2, 1, 1, dtype=torch.bool)).spread
    assert torch.allclose(spread, torch.tensor([[1 - 0.5**0.5, 0]]), atol=1e-6)


@pytest.mark.parametrize("outlined", [False, True])
def test_pictures_follow_it(
    latents: torch.Tensor, recognition: Recognition, looks: RegionLooks, outlined: bool
) -> None:
    judge, wanted = replace(recognition, spread=looks.spread), _looks(looks, (1, 0))
    changed, distances = recognition.pictures(latents).detach().requires_grad_(), []
    step = 0.004 if outlined else 0.02  # where the parser draws the line is less smooth
    for _ in range(4):
        distance = judge.region_distances(changed, _EACH, wanted, *_both(_SEEN[1], outlined=outlined), _STILL).mean()
        (gradient,) = torch.autograd.grad(distance, changed)
        assert outlined or not gradient[:, :, :30].any()  # hair and forehead are not near the nose
        changed = (changed - step * gradient.sign()).detach().requires_grad_()
        distances.append(float(distance.detach()))
    assert distances[-1] < distances[0] - 0.05


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_step_compares_what_can_be_seen(
    models: TrainingModels, sampler: StoreSampler, recognition: Recognition, looks: RegionLooks, share: float
) -> None:
    config = StepConfig(**_KEEP_ALL, regions_weight=2, stranger_from=0.8, localisation_weight=0)
    batch = replace(sampler, strangers=0.5).draw(4, torch.Generator().manual_seed(0))
    people = torch.tensor([[0] * 5, [1] * 5] * 2)
    batch = replace(batch, looks=looks.of(people, torch.zeros(4, dtype=torch.long)))
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, torch.Generator().manual_seed(1), config=config)
    draws = replace(draws, timesteps=torch.full((4,), int(1000 * share)))
    models = replace(models, recognition=replace(recognition, spread=looks.spread))
    seen = {}
    for name, unknown in (("all", torch.zeros(4) > 0), ("own", batch.stranger), ("strangers", ~batch.stranger)):
        known = batch.looks.known & ~unknown[:, None]
        with torch.no_grad():
            losses = training_step(
                models, replace(batch, looks=replace(batch.looks, known=known)), draws, config=config
            )
        assert torch.allclose(losses.total, losses.noise + 2 * losses.regions)
        assert losses.identity is None
        seen[name] = float(losses.regions)
    assert (seen["own"] > 0) == (share < 0.98)
    assert (seen["strangers"] > 0) == (0.8 < share < 0.98)
    assert (seen["all"] > 0) == (share < 0.98)


def test_its_gradients_reach_the_facial_encoder(
    models: TrainingModels, sampler: StoreSampler, recognition: Recognition, looks: RegionLooks
) -> None:
    config = StepConfig(**_KEEP_ALL, regions_weight=1, localisation_weight=0)
    batch = sampler.draw(2, torch.Generator().manual_seed(0))
    batch = replace(batch, looks=_looks(looks, (0, 1)))
    draws = draw_step(tuple(batch.latents.shape), models.scheduler, torch.Generator().manual_seed(1), config=config)
    draws = replace(draws, timesteps=torch.full((2,), 500))
    encoder = models.adapter.facial_encoder.requires_grad_(True)
    encoder.zero_grad()
    models = replace(models, recognition=replace(recognition, spread=looks.spread))
    training_step(models, batch, draws, config=config).regions.backward()
    assert any(one.grad is not None and one.grad.any() for one in encoder.parameters())


def test_a_loss_at_weight_0_is_not_there(models: TrainingModels, sampler: StoreSampler) -> None:
    batch = sampler.draw(2, torch.Generator().manual_seed(0))
    layers = cross_attention_layers(models.unet, largest=8)
    models = replace(models, recorder=AttentionRecorder(models.unet, layers))
    for eq1, share in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        config = StepConfig(**_KEEP_ALL, localisation_weight=eq1, share_weight=share)
        draws = draw_step(tuple(batch.latents.shape), models.scheduler, torch.Generator().manual_seed(1), config=config)
        with torch.no_grad():
            losses = training_step(models, batch, draws, config=config)
        assert (losses.localisation is not None, losses.share is not None) == (eq1 > 0, share > 0)
        assert (losses.regions, losses.identity) == (None, None)


def _both(region: int, *, outlined: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((2,), region), torch.full((2,), outlined)


def _looks(looks: RegionLooks, people: tuple[int, int]) -> Looks:
    return looks.of(torch.tensor(people)[:, None].expand(-1, len(REGION_NAMES)), torch.zeros(2, dtype=torch.long))
