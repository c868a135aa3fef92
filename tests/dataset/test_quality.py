"""What is measured of a face, and which rules it breaks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pydantic import ValidationError

from consistentid.dataset.quality import RULE_NAMES, Rules, measure
from consistentid.dataset.record import Quality
from consistentid.faces.detection import DetectedFace, DlibDetector

GOOD = Quality(faces=1, face_px=200, sharpness=350, brightness=0.55, clipped=0, yaw=0, roll=0)


@pytest.fixture(scope="module")
def woman(sample_photos: dict[str, Path]) -> tuple[Image.Image, DetectedFace]:
    image = Image.open(sample_photos["synthetic-woman"])
    return image, DlibDetector("hog").detect(np.asarray(image))[0]


def _measure(image: Image.Image, face: DetectedFace) -> Quality:
    photo = np.asarray(image)
    return measure(photo, face, np.ones(photo.shape[:2], np.uint8), faces=1)


def _scaled(face: DetectedFace, factor: float) -> DetectedFace:
    box = tuple(value * factor for value in face.box)
    return DetectedFace(box, face.landmarks * factor, face.identity_embedding, face.score)  # type: ignore[arg-type]


def test_a_good_photo_breaks_no_rule(woman: tuple[Image.Image, DetectedFace]) -> None:
    image, face = woman
    quality = _measure(image, face)
    assert Rules().reasons(quality, width=image.width, height=image.height) == []
    assert quality.face_px == pytest.approx(face.box[2] - face.box[0])
    assert abs(quality.yaw) < 0.2
    assert abs(quality.roll) < 5


def test_sharpness_falls_by_blur_and_not_by_size(woman: tuple[Image.Image, DetectedFace]) -> None:
    image, face = woman
    sharp = _measure(image, face).sharpness
    smaller = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
    blurred = _measure(image.filter(ImageFilter.GaussianBlur(0.03 * (face.box[2] - face.box[0]))), face)
    assert _measure(smaller, _scaled(face, 0.75)).sharpness == pytest.approx(sharp, rel=0.3)
    assert "blurred" in Rules().reasons(blurred, width=512, height=512)


def test_light_is_measured_inside_the_face() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    labels = np.zeros((100, 100), np.uint8)
    photo[20:80, 30:70], labels[20:80, 30:70] = 102, 1
    photo[20:35, 30:70] = 255
    landmarks = np.array([[40, 40], [60, 40], [50, 55], [42, 65], [58, 65]], np.float32)
    face = DetectedFace((10, 10, 90, 90), landmarks, np.zeros(4, np.float32), 1.0)
    quality = measure(photo, face, labels, faces=1)
    assert quality.clipped == pytest.approx(0.25)
    assert quality.brightness == pytest.approx((0.25 * 255 + 0.75 * 102) / 255)
    assert measure(photo, face, np.zeros_like(labels), faces=1).brightness < quality.brightness


@pytest.mark.parametrize("angle", [-20, 0, 30])
def test_yaw_does_not_depend_on_roll(angle: float) -> None:
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.array([[-20, 0], [20, 0], [10, 25], [-15, 40], [15, 40]]) @ matrix.T + 100
    face = DetectedFace((60, 60, 160, 160), points.astype(np.float32), np.zeros(4, np.float32), 1.0)
    quality = measure(np.zeros((200, 200, 3), np.uint8), face, np.zeros((200, 200), np.uint8), faces=1)
    assert quality.yaw == pytest.approx(0.5, abs=1e-4)
    assert quality.roll == pytest.approx(angle, abs=1e-4)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("several_faces", {"faces": 2}),
        ("small_face", {"face_px": 63}),
        ("blurred", {"sharpness": 14}),
        ("dark", {"brightness": 0.07}),
        ("bright", {"brightness": 0.93}),
        ("clipped", {"clipped": 0.3}),
        ("turned", {"yaw": -1.3}),
        ("tilted", {"roll": -50.0}),
    ],
)
def test_each_rule_has_its_name(rule: str, change: dict[str, float]) -> None:
    assert Rules().reasons(GOOD.model_copy(update=change), width=512, height=512) == [rule]
    assert rule in RULE_NAMES


def test_all_broken_rules_are_told_and_every_limit_can_be_set() -> None:
    assert Rules().reasons(GOOD, width=512, height=100) == ["small_photo"]
    rules = Rules(max_faces=3, min_side=10, min_face=300)
    assert rules.reasons(GOOD.model_copy(update={"faces": 3, "yaw": 2.0}), width=10, height=10) == [
        "small_face",
        "turned",
    ]
    assert len(set(RULE_NAMES)) == len(Rules.model_fields) == 9
    with pytest.raises(ValidationError):
        Rules(min_facee=1)
