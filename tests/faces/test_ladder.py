"""Another look where the first found nothing."""

import numpy as np
import pytest
from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.faces.detection import DetectedFace, DlibDetector
from consistentid.faces.ladder import LadderDetector

FACE = DetectedFace((10, 20, 50, 60), np.arange(10, dtype=np.float32).reshape(5, 2), np.ones(4, np.float32), 1.0)


class Sees:
    """Finds a face only in pictures of some sizes, and remembers what it was shown."""

    name = "sees"

    def __init__(self, *sizes: tuple[int, int], dim: int = 4) -> None:
        self.sizes = sizes
        self.embedding_dim = dim
        self.shown: list[tuple[int, int]] = []

    def detect(self, photo: np.ndarray) -> list[DetectedFace]:
        self.shown.append(photo.shape[:2])
        return [FACE] if photo.shape[:2] in self.sizes else []


def test_the_first_look_is_left_as_it_is() -> None:
    detector = Sees((100, 80), (200, 180))
    (face,) = LadderDetector(detector).detect(np.zeros((100, 80, 3), np.uint8))
    assert face is FACE
    assert detector.shown == [(100, 80)]


@pytest.mark.parametrize(
    ("size", "box", "first"),
    [((200, 180), (-40, -30, 0, 10), (-50, -49)), ((200, 160), (5, 10, 25, 30), (0, 0.5))],
)
def test_places_are_those_in_the_photo(
    size: tuple[int, int], box: tuple[float, ...], first: tuple[float, float]
) -> None:
    (face,) = LadderDetector(Sees(size)).detect(np.zeros((100, 80, 3), np.uint8))
    assert face.box == box
    assert tuple(face.landmarks[0]) == first


def test_the_other_detector_comes_last() -> None:
    one, two = Sees(), Sees((100, 80))
    assert len(LadderDetector(one, two).detect(np.zeros((100, 80, 3), np.uint8))) == 1
    assert one.shown == [(100, 80), (200, 180), (200, 160)]
    assert LadderDetector(one).detect(np.zeros((3000, 80, 3), np.uint8)) == []
    assert one.shown[-1] == (6000, 3080), "a large photo is not enlarged"
    with pytest.raises(InvalidSettings, match="belongs to one recogniser"):
        LadderDetector(one, Sees(dim=5))


def test_dlib_finds_a_face_that_fills_the_photo(dlib_detector: DlibDetector, woman: Image.Image) -> None:
    (whole,) = dlib_detector.detect(np.asarray(woman))
    left, top, right, bottom = (round(value) for value in whole.box)
    inset = round(0.18 * whole.size)
    close = np.asarray(woman.crop((left + inset, top + inset, right - inset, bottom - inset)))
    assert dlib_detector.detect(close) == [], "choose a tighter crop: this one needs no ladder"
    (face,) = LadderDetector(dlib_detector).detect(close)
    moved = face.landmarks + (left + inset, top + inset)
    assert np.abs(moved[:3] - whole.landmarks[:3]).max() < 0.1 * whole.size
    assert np.linalg.norm(face.identity_embedding - whole.identity_embedding) < 0.6
