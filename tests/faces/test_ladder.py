"""Another look where the first found nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalyzer
from consistentid.faces.detection import DetectedFace, DlibDetector
from consistentid.faces.ladder import LadderDetector

EMBEDDED = Path(__file__).parents[2] / "src/consistentid/embedded"
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


def test_places_are_those_in_the_photo() -> None:
    (face,) = LadderDetector(Sees((200, 180))).detect(np.zeros((100, 80, 3), np.uint8))
    assert face.box == (-40, -30, 0, 10)
    assert tuple(face.landmarks[0]) == (-50, -49)


def test_the_other_detector_is_asked_second_for_every_look() -> None:
    one, two = Sees(), Sees((200, 180))
    assert len(LadderDetector(one, two).detect(np.zeros((100, 80, 3), np.uint8))) == 1
    assert one.shown == [(100, 80), (200, 180)]
    assert two.shown == one.shown
    with pytest.raises(InvalidSettings, match="belongs to one recogniser"):
        LadderDetector(one, Sees(dim=5))


def test_tiles_cover_the_photo_and_a_face_in_two_of_them_counts_once() -> None:
    photo = np.zeros((500, 1000, 3), np.uint8)
    photo[210:230, 320:340] = 255

    class Bright(Sees):
        """Sees what is bright in pictures of up to 400 px."""

        def detect(self, photo: np.ndarray) -> list[DetectedFace]:
            super().detect(photo)
            rows, columns = np.nonzero(photo[..., 0] if max(photo.shape[:2]) <= 400 else photo[:0, :0, 0])
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if rows.size else ()
            return [replace(FACE, box=tuple(map(float, box)))] if box else []

    detector = Bright()
    (face,) = LadderDetector(detector).detect(photo)
    assert face.box == (320, 210, 340, 230)
    assert detector.shown == [(500, 1000), (1500, 2000), *[(400, 400)] * 6]
    small = Sees()
    assert LadderDetector(small).detect(photo[:400, :400]) == []
    assert small.shown == [(400, 400), (800, 800)], "a photo of one tile was seen already"


def test_the_embedded_ladder_asks_hog_and_then_the_cnn() -> None:
    ladder = FaceAnalyzer.from_pretrained(EMBEDDED).detector
    assert isinstance(ladder, LadderDetector)
    assert [detector.name for detector in ladder.detectors] == ["dlib hog", "dlib cnn", "dlib small"]


def test_dlibs_cnn_finds_the_turned_face_that_hog_does_not(woman: Image.Image) -> None:
    turned = np.asarray(woman.resize((240, 240)).rotate(50, fillcolor="grey"))
    hog, cnn = DlibDetector("hog"), DlibDetector("cnn")
    assert hog.detect(turned) == []
    (face,) = LadderDetector(hog, cnn).detect(turned)
    assert face.box == cnn.detect(turned)[0].box


def test_dlib_finds_a_small_face_in_a_large_photo_by_tiles_alone(woman: Image.Image, caplog: Any) -> None:
    panorama = Image.new("RGB", (3200, 500), (120, 130, 140))
    panorama.paste(woman.resize((170, 170)), (2300, 200))
    with caplog.at_level("INFO"):
        (face,) = LadderDetector(DlibDetector("hog", "small")).detect(np.asarray(panorama))  # the CNN takes seconds
    assert caplog.messages == ["dlib hog small found 1 faces in the photo in tiles"]
    assert 2300 < face.box[0] < face.box[2] < 2470
    assert 200 < face.box[1] < face.box[3] < 370


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
