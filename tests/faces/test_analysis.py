"""The whole of photo -> FaceAnalysis, choice of face and every refusal."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from consistentid.errors import FaceNotSelected, InvalidData, NoFaceFound, UnreadableImage, WeightsNotFound
from consistentid.faces.analysis import (
    FaceAnalysis,
    FaceAnalyzer,
    in_order,
    landmarks_of_labels,
    parse_choice,
    with_lips,
)
from consistentid.faces.description import TEMPLATE, TemplateDescriber
from consistentid.faces.detection import DetectedFace, DlibDetector
from consistentid.faces.overlay import draw_analysis, region_strip
from consistentid.faces.regions import REGION_NAMES

Drawn = tuple[np.ndarray, np.ndarray, DetectedFace]


class DrawnParser:
    """Paints the drawn label map into the face's box."""

    name = "drawn"

    def __init__(self, label_map: np.ndarray) -> None:
        self.label_map = label_map[41:225, 59:197]

    def parse(self, photo: np.ndarray, face: DetectedFace) -> np.ndarray:
        left, top, right, bottom = (round(value) for value in face.box)
        canvas = Image.new("L", (photo.shape[1], photo.shape[0]))
        canvas.paste(Image.fromarray(self.label_map).resize((right - left, bottom - top), 0), (left, top))
        return np.asarray(canvas)


@pytest.fixture(scope="module")
def analyzer(dlib_detector: DlibDetector, drawn_face: Drawn) -> FaceAnalyzer:
    return FaceAnalyzer(dlib_detector, DrawnParser(drawn_face[1]), TemplateDescriber())


@pytest.fixture(scope="module")
def group(woman: Image.Image, man: Image.Image) -> Image.Image:
    """The man, small, on the left; the woman, large, on the right."""
    image = Image.new("RGB", (900, 520), "grey")
    image.paste(man, (10, 100))
    image.paste(woman, (380, 4))
    return image


def test_a_photo_becomes_an_analysis(analyzer: FaceAnalyzer, woman: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "portrait.png"
    woman.save(path)
    analysis = analyzer.analyze(path)
    assert np.array_equal(analysis.photo, woman)
    assert analysis.label_map.shape == analysis.photo.shape[:2]
    assert analysis.parser_label_map is None
    assert tuple(analysis.region_masks) == REGION_NAMES
    assert analysis.description == TEMPLATE
    assert analysis.identity_embedding.shape == (128,)
    assert analysis.faces_found == 1
    lips = np.isin(analysis.label_map, (11, 12, 13))
    assert np.nonzero(lips.any(0))[0][0] - 2 <= analysis.landmarks[3, 0] <= analysis.landmarks[4, 0]


def test_the_same_photo_gives_the_same_analysis(analyzer: FaceAnalyzer, woman: Image.Image) -> None:
    first, second = analyzer.analyze(woman), analyzer.analyze(np.asarray(woman))
    assert np.array_equal(first.identity_embedding, second.identity_embedding)
    assert np.array_equal(first.label_map, second.label_map)


def test_a_face_is_chosen_by_size_side_or_number(analyzer: FaceAnalyzer, group: Image.Image) -> None:
    centres = {
        choice: (lambda box: (box[0] + box[2]) / 2)(analyzer.analyze(group, face=choice).box)
        for choice in ("largest", 0, 1, "1", "largest:1", "left", "left:1", "right", "centre", "center:1", "surest")
    }
    woman_on_the_right = {choice for choice, x in centres.items() if x > 380}
    assert woman_on_the_right - {"surest"} == {"largest", 0, "left:1", "right", "centre"}
    assert analyzer.analyze(group).faces_found == 2


@pytest.mark.parametrize("choice", [2, "left:2", "right:9"])
def test_absent_faces_are_refused_with_their_number(
    analyzer: FaceAnalyzer, group: Image.Image, choice: int | str
) -> None:
    with pytest.raises(FaceNotSelected, match="2 faces are found; count from 0"):
        analyzer.analyze(group, face=choice)


@pytest.mark.parametrize("choice", [-1, "-1", "leftmost", "left:", "left:x", "", "largest:-1", "left:1:2", "²"])
def test_malformed_choices_are_refused_or_read_as_the_first(choice: int | str) -> None:
    if choice == "left:":
        assert parse_choice(choice) == ("left", 0)
        return
    with pytest.raises(FaceNotSelected, match="write one of largest, left"):
        parse_choice(choice)


def test_orders_are_total(drawn_face: Drawn) -> None:
    base = drawn_face[2]
    faces = [
        DetectedFace((x, 10, x + size, 10 + size), base.landmarks, base.identity_embedding, score)
        for x, size, score in ((0, 50, 0.2), (100, 90, 0.1), (300, 40, 0.9))
    ]
    found = {
        order: [faces.index(face) for face in in_order(faces, order, width=400, height=100)]
        for order in ("largest", "left", "right", "centre", "surest")
    }
    assert found == {
        "largest": [1, 0, 2],
        "left": [0, 1, 2],
        "right": [2, 1, 0],
        "centre": [1, 2, 0],
        "surest": [2, 0, 1],
    }


def test_no_face_too_small_and_no_photo_are_one_sentence(
    analyzer: FaceAnalyzer, woman: Image.Image, dlib_detector: DlibDetector, drawn_face: Drawn, tmp_path: Path
) -> None:
    wall = tmp_path / "wall.jpg"
    Image.new("RGB", (300, 200), "grey").save(wall)
    with pytest.raises(NoFaceFound, match=r"no face in wall\.jpg; give a photo"):
        analyzer.analyze(wall)
    with pytest.raises(NoFaceFound, match=r"the largest is 1\d px, 32 px are needed"):
        analyzer.analyze(woman.resize((40, 40)))
    strict = FaceAnalyzer(dlib_detector, DrawnParser(drawn_face[1]), TemplateDescriber(), min_face=400)
    with pytest.raises(NoFaceFound, match=r"400 px are needed"):
        strict.analyze(woman)
    with pytest.raises(UnreadableImage, match="does not exist"):
        analyzer.analyze(tmp_path / "absent.jpg")


def test_a_stretched_label_map_is_kept_next_to_one_at_the_photos_size(
    dlib_detector: DlibDetector, man: Image.Image, drawn_face: Drawn
) -> None:
    class Stretching(DrawnParser):
        def parse(self, photo: np.ndarray, face: DetectedFace) -> np.ndarray:
            return drawn_face[1]

    analysis = FaceAnalyzer(dlib_detector, Stretching(drawn_face[1]), TemplateDescriber()).analyze(man)
    assert analysis.label_map.shape == (275, 225)
    assert analysis.parser_label_map is drawn_face[1]
    masks = analysis.official_region_masks
    assert list(masks) == ["face", "eyes", "ears", "nose", "mouth"]
    assert all(mask.shape == (275, 225) for mask in masks.values())


def test_mouth_corners_move_to_the_lips_but_not_to_another_mouth(drawn_face: Drawn) -> None:
    _, label_map, face = drawn_face
    moved = with_lips(face.landmarks, label_map)
    columns = np.nonzero(np.isin(label_map, (11, 12, 13)).any(0))[0]
    assert np.array_equal(moved[:3], face.landmarks[:3])
    assert abs(moved[3, 0] - columns[0]) < 5
    assert abs(moved[4, 0] - columns[-1]) < 5
    far = face.landmarks + np.float32(150)
    assert np.array_equal(with_lips(far, label_map), far)
    assert np.array_equal(with_lips(face.landmarks, np.zeros_like(label_map)), face.landmarks)


def test_an_analysis_is_made_from_parts(drawn_face: Drawn, parity_inputs: ModuleType) -> None:
    photo, label_map, face = drawn_face
    analysis = FaceAnalysis.from_parts(photo, label_map, face.identity_embedding)
    assert np.abs(analysis.landmarks[:2] - face.landmarks[:2]).max() < 2
    assert analysis.parser_label_map is None
    large = parity_inputs.face_inputs(640)[1]
    stretched = FaceAnalysis.from_parts(photo, large, face.identity_embedding, description="a face")
    assert stretched.description == "a face"
    assert stretched.label_map.shape == (256, 256)
    assert stretched.parser_label_map is large
    assert analysis.description is None
    with pytest.raises(InvalidData, match=r"lacks the lips; give FaceAnalysis\.from_parts landmarks="):
        landmarks_of_labels(np.where(np.isin(label_map, (11, 12, 13)), 1, label_map))
    with pytest.raises(InvalidData, match="lacks an eye"):
        landmarks_of_labels(np.where(label_map == 4, 1, label_map))


@pytest.mark.parametrize("hidden", [(4,), (10,), (11, 12, 13)])
def test_a_label_map_without_landmarks_is_enough_for_the_release(drawn_face: Drawn, hidden: tuple[int, ...]) -> None:
    photo, label_map, face = drawn_face
    partly = np.where(np.isin(label_map, hidden), 1, label_map).astype(np.uint8)
    analysis = FaceAnalysis.from_parts(photo, partly, face.identity_embedding)
    assert analysis.landmarks is None
    assert {"face", "eyes"} <= analysis.official_region_masks.keys()
    assert draw_analysis(analysis).size == (256, 256)
    given = FaceAnalysis.from_parts(photo, partly, face.identity_embedding, landmarks=face.landmarks)
    assert given.landmarks is face.landmarks


def test_a_label_map_without_a_face_is_refused(drawn_face: Drawn) -> None:
    photo, label_map, face = drawn_face
    with pytest.raises(InvalidData, match="the label map shows no face"):
        FaceAnalysis.from_parts(photo, np.zeros_like(label_map), face.identity_embedding)


def test_a_folder_without_a_parser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="no face parser in"):
        FaceAnalyzer.from_pretrained(tmp_path)


def test_overlay_and_strip_show_every_region(drawn_face: Drawn) -> None:
    photo, label_map, face = drawn_face
    analysis = FaceAnalysis.from_parts(photo, label_map, face.identity_embedding)
    overlay = np.asarray(draw_analysis(analysis))
    assert overlay.shape == photo.shape
    changed = (overlay != photo).any(-1)
    assert changed[analysis.region_masks["nose"]].mean() > 0.9
    assert not changed[:20].any()
    assert region_strip(analysis, size=64).size == (6 * 64, 80)
