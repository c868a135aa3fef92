"""Detectors: dlib on real photos, the others up to the network's door."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistentid.errors import WeightsNotFound
from consistentid.faces.arcface import InsightFaceDetector, UnifaceDetector
from consistentid.faces.detection import DlibDetector


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def test_dlib_finds_the_face_with_its_landmarks(dlib_detector: DlibDetector, woman: Image.Image) -> None:
    (face,) = dlib_detector.detect(np.asarray(woman))
    left, right, nose, mouth_left, mouth_right = face.landmarks
    assert face.identity_embedding.shape == (128,)
    assert left[0] < nose[0] < right[0]
    assert left[1] < nose[1] < mouth_left[1]
    assert mouth_left[0] < mouth_right[0]
    assert all(face.box[0] < x < face.box[2] and face.box[1] < y < face.box[3] for x, y in face.landmarks)
    assert not face.mouth_measured


def test_dlib_knows_people_apart_in_other_sizes_and_in_grey(
    dlib_detector: DlibDetector, woman: Image.Image, man: Image.Image
) -> None:
    variants = [woman, woman.resize((300, 300)), woman.resize((1400, 1400)), woman.convert("L").convert("RGB")]
    embeddings = [dlib_detector.detect(np.asarray(variant))[0].identity_embedding for variant in variants]
    other = dlib_detector.detect(np.asarray(man))[0].identity_embedding
    for embedding in embeddings[1:]:
        assert distance(embedding, embeddings[0]) < 0.35
    assert min(distance(embedding, other) for embedding in embeddings) > 0.6


def test_dlib_lists_several_faces_the_largest_first(
    dlib_detector: DlibDetector, woman: Image.Image, man: Image.Image
) -> None:
    group = Image.new("RGB", (900, 520), "grey")
    group.paste(man.resize((225, 275)), (10, 100))
    group.paste(woman, (380, 4))
    faces = dlib_detector.detect(np.asarray(group))
    assert len(faces) == 2
    assert faces[0].size > faces[1].size
    assert faces[0].box[0] > faces[1].box[2]


def test_dlib_looks_closer_when_faces_are_small(dlib_detector: DlibDetector, woman: Image.Image) -> None:
    field_ = Image.new("RGB", (1600, 1000), (120, 130, 140))
    field_.paste(woman.resize((150, 150)), (700, 400))
    (face,) = dlib_detector.detect(np.asarray(field_))
    assert 40 < face.size < 90


@pytest.mark.parametrize("size", [(5, 5), (3000, 2), (1, 1), (60, 60)])
def test_dlib_finds_nothing_where_nothing_is(dlib_detector: DlibDetector, size: tuple[int, int]) -> None:
    assert dlib_detector.detect(np.asarray(Image.new("RGB", size, "grey"))) == []


def test_missing_packages_and_packs_are_named(tmp_path: Path) -> None:
    photo = np.zeros((64, 64, 3), np.uint8)
    for detector in (InsightFaceDetector(root=tmp_path, offline=True), UnifaceDetector()):
        assert detector.embedding_dim == 512
        try:
            __import__(detector.name)
        except ImportError:
            with pytest.raises(WeightsNotFound, match=r"pip install .*consistentid\[faces\]"):
                detector.detect(photo)
        else:
            pytest.skip(f"{detector.name} is installed")


@dataclass
class Found:
    """A face as InsightFace and uniface report it."""

    bbox: np.ndarray
    kps: np.ndarray = field(default_factory=lambda: np.arange(10.0).reshape(5, 2))
    normed_embedding: np.ndarray = field(default_factory=lambda: np.ones(512) / 512**0.5)
    det_score: float = 0.9

    @property
    def landmarks(self) -> np.ndarray:
        return self.kps

    @property
    def confidence(self) -> float:
        return self.det_score


class Network:
    """Stands where the networks of InsightFace and uniface stand; they cannot be installed here."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def get(self, photo: np.ndarray) -> list[Found]:
        self.seen.append(photo)
        return [Found(np.array([0.0, 0, 10, 10])), Found(np.array([0.0, 0, 40, 50]))]

    detect = get

    def get_normalized_embedding(self, photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        assert landmarks.shape == (5, 2)
        return Found(landmarks).normed_embedding


@pytest.mark.parametrize(("order", "first"), [("bgr", 30), ("rgb", 10)])
def test_insightface_gets_the_channels_in_the_asked_order(order: str, first: int) -> None:
    detector, network = InsightFaceDetector(channel_order=order), Network()
    detector.__dict__["_app"] = network
    photo = np.full((64, 64, 3), (10, 20, 30), np.uint8)
    faces = detector.detect(photo)
    assert network.seen[0][0, 0, 0] == first
    assert network.seen[0].flags["C_CONTIGUOUS"]
    assert [face.size for face in faces] == [45, 10]
    assert faces[0].landmarks.dtype == faces[0].identity_embedding.dtype == np.float32


@pytest.mark.parametrize(("order", "first"), [("bgr", 30), ("rgb", 10)])
def test_uniface_gets_the_channels_in_the_asked_order(order: str, first: int) -> None:
    detector, network = UnifaceDetector(channel_order=order), Network()
    detector.__dict__["_networks"] = (network, network)
    faces = detector.detect(np.full((64, 64, 3), (10, 20, 30), np.uint8))
    assert network.seen[0][0, 0, 0] == first
    assert faces[0].box == (0, 0, 40, 50)
    assert faces[0].identity_embedding.shape == (512,)
