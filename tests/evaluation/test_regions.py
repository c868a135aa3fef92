"""FGIS: 1 for identical faces, and it falls for the region that was changed and for no other."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from consistentid.evaluation.embedders import DlibFeatures
from consistentid.evaluation.fgis import (
    embed_regions,
    embed_squares,
    region_crops,
    region_similarity,
    region_squares,
)
from consistentid.evaluation.judge import Judge
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.faces.crops import align_face
from consistentid.faces.regions import REGION_NAMES, SKIN, region_masks
from consistentid.generation.loading import embedded_folder

PHOTO = Path("examples/photos/synthetic-woman.jpg")
EMBEDDER = DlibFeatures()


@pytest.fixture(scope="module")
def face() -> FaceAnalysis:
    return FaceAnalyzer.from_pretrained(embedded_folder()).analyze(PHOTO)


def embedded(photo: np.ndarray, face: FaceAnalysis) -> dict[str, np.ndarray]:
    assert face.landmarks is not None
    return embed_regions(region_crops(photo, face.label_map, face.landmarks), EMBEDDER)


def inside(face: FaceAnalysis, region: str) -> np.ndarray:
    """The region's own pixels, less a border that resampling mixes with its neighbours."""
    mask = face.label_map == SKIN if region == "face" else region_masks(face.label_map)[region]
    return cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)


def test_a_face_is_wholly_like_itself(face: FaceAnalysis) -> None:
    same = region_similarity(embedded(face.photo, face), embedded(face.photo, face))
    assert same.mean == pytest.approx(1)
    assert set(same.regions) | set(same.missing) == set(REGION_NAMES)
    assert {"face", "eyes", "nose", "mouth"} <= same.regions.keys()


@pytest.mark.parametrize("region", ["face", "eyes", "nose", "mouth"])
def test_only_the_changed_region_falls(face: FaceAnalysis, region: str) -> None:
    changed = np.where(inside(face, region)[..., None], face.photo[::-1, ::-1], face.photo)
    assert (changed != face.photo).any()
    found = region_similarity(embedded(face.photo, face), embedded(changed, face)).regions
    assert found.pop(region) < 0.99
    assert found == pytest.approx(dict.fromkeys(found, 1.0))


def test_where_the_head_is_and_how_it_is_turned_does_not_matter(face: FaceAnalysis) -> None:
    assert face.landmarks is not None
    turn = cv2.getRotationMatrix2D((face.photo.shape[1] / 2, face.photo.shape[0] / 2), 15, 0.9)
    size = (face.photo.shape[1], face.photo.shape[0])
    photo = cv2.warpAffine(face.photo, turn, size, flags=cv2.INTER_CUBIC)
    labels = cv2.warpAffine(face.label_map, turn, size, flags=cv2.INTER_NEAREST)
    landmarks = (face.landmarks @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    moved = embed_regions(region_crops(photo, labels, landmarks), EMBEDDER)
    found = region_similarity(embedded(face.photo, face), moved)
    assert found.mean > 0.93
    assert found.mean > region_similarity(embedded(face.photo, face), embedded(face.photo[:, ::-1], face)).mean


def test_regions_that_one_face_lacks_are_counted_not_averaged(face: FaceAnalysis) -> None:
    own = embedded(face.photo, face)
    found = region_similarity(own, {"nose": own["nose"], "mouth": -own["mouth"]})
    assert found.mean == pytest.approx(0)
    assert found.missing == ("face", "ears", "eyes")
    assert np.isnan(region_similarity(own, {}).mean)


def test_crops_are_black_outside_the_region(face: FaceAnalysis) -> None:
    assert face.landmarks is not None
    crops = region_crops(face.photo, face.label_map, face.landmarks)
    assert np.asarray(crops["eyes"])[:20].max() == 0  # eyes are a strip in a square
    assert np.asarray(crops["nose"]).mean() > 10


def test_squares_show_what_is_around_each_eye(face: FaceAnalysis) -> None:
    assert face.landmarks is not None
    found = region_squares(face.photo, face.label_map, face.landmarks)
    assert [len(found[name]) for name in ("face", "eyes", "nose", "mouth")] == [1, 2, 1, 1]
    assert len(found["ears"]) == 1  # hair hides the other
    left, right = (np.asarray(eye) for eye in found["eyes"])
    assert min(left.min(2).mean(), right.min(2).mean()) > 20  # skin, not black
    assert np.abs(left.astype(int) - right).mean() > 5
    first, second = (
        embed_squares(region_squares(photo, face.label_map, face.landmarks), EMBEDDER)
        for photo in (face.photo, np.where(inside(face, "nose")[..., None], face.photo[::-1, ::-1], face.photo))
    )
    assert region_similarity(first, first).mean == pytest.approx(1)
    same = region_similarity(first, second).regions
    assert same["nose"] < min(0.99, same["mouth"])
    assert embed_squares({}, EMBEDDER) == {}


def test_the_order_of_crops_and_the_batch_do_not_matter(face: FaceAnalysis) -> None:
    chips = [align_face(face.image, face.landmarks, size) for size in (150, 90)]
    together, alone = EMBEDDER.embed(chips), [EMBEDDER.embed([chip])[0] for chip in chips]
    assert together == pytest.approx(np.stack(alone), abs=1e-4)
    assert EMBEDDER.embed([]).shape == (0, together.shape[1])


def test_a_judge_counts_what_it_cannot_measure(tmp_path: Path) -> None:
    judge = Judge.embedded(embedded_folder())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert "broken.png" in str(judge.measure(broken).failure)
    assert judge.measure(np.full((64, 64, 3), 90, np.uint8)).failure == "no face"
    assert judge.measure(PHOTO, rank=1).failure == "no face number 2"
