"""Photos -> records, with a detector and a parser that need no face."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistentid.dataset.build import PhotoRecord, build_records, photo_files
from consistentid.errors import InvalidData
from consistentid.faces.crops import Square
from consistentid.faces.detection import DetectedFace
from consistentid.training.embedded.store import SIZE, open_portrait

_WIDE = (64, 48)


class _Detector:
    """Finds a face in everything that is not black."""

    embedding_dim = 4

    def detect(self, photo: np.ndarray) -> list[DetectedFace]:
        if not photo.any():
            return []
        landmarks = np.array([[20, 16], [40, 16], [30, 24], [22, 32], [38, 32]], np.float32)
        return [DetectedFace((10, 4, 50, 44), landmarks, np.full(4, photo.mean(), np.float32), 1.0)]


class _Parser:
    """Skin on the left half."""

    def parse(self, photo: np.ndarray, face: DetectedFace) -> np.ndarray:
        labels = np.zeros(photo.shape[:2], np.uint8)
        labels[:, : photo.shape[1] // 2] = 1
        return labels


def _build(photos: Path, out: Path) -> list[PhotoRecord]:
    return build_records(photos, out, detector=_Detector(), parser=_Parser(), caption="a face")


def _photo(path: Path, colour: int = 100, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", _WIDE, (colour, 50, 50)).save(path, **options)
    return path


def test_photos_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for folder, colour in (("a", 50), ("b", 200)):
        _photo(tmp_path / "in" / folder / "1.png", colour)
    records = _build(tmp_path / "in", tmp_path / "out")
    assert [record.person for record in records] == ["a/1", "b/1"]
    assert len({record.label_map for record in records}) == 2
    assert all(record.label_map.is_file() for record in records)


def test_given_label_maps_lie_in_the_same_folders(tmp_path: Path) -> None:
    _photo(tmp_path / "photos" / "1.png")
    _photo(tmp_path / "a" / "1.png")
    for name in ("1.png", "a/1.png"):
        (tmp_path / "label_maps" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", _WIDE).save(tmp_path / "label_maps" / name)
    records = _build(tmp_path, tmp_path / "out")
    assert {record.label_map.relative_to(tmp_path).as_posix() for record in records} == {
        "label_maps/1.png",
        "label_maps/a/1.png",
    }
    assert len(photo_files(tmp_path)) == 2


def test_a_later_run_takes_what_the_folder_holds_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (_photo(tmp_path / "in" / f"{name}.png") for name in "ab")
    _photo(tmp_path / "in" / "dark.png").write_bytes(b"")
    _build(tmp_path / "in", tmp_path / "out")
    first.unlink()
    _photo(tmp_path / "in" / "c.png")
    monkeypatch.chdir(tmp_path)
    records = _build(Path("in"), Path("out"))  # the same folder, called otherwise
    assert [record.photo for record in records] == [second, tmp_path / "in" / "c.png"]
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert "dark.png" in (tmp_path / "out" / "rejected.jsonl").read_text()


@pytest.mark.parametrize("name", ["records.jsonl", "rejected.jsonl"])
def test_a_line_cut_by_a_kill_is_dropped_and_a_broken_one_told(tmp_path: Path, name: str) -> None:
    _photo(tmp_path / "in" / "a.png")
    _photo(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "dark.png").write_bytes(b"no image")
    _build(tmp_path / "in", tmp_path / "out")
    file = tmp_path / "out" / name
    whole = file.read_text()
    file.write_text(whole + whole[:20])
    assert len(_build(tmp_path / "in", tmp_path / "out")) == 2
    assert file.read_text() == whole
    file.write_text("{broken\n" + whole)
    with pytest.raises(InvalidData, match="line 1"):
        _build(tmp_path / "in", tmp_path / "out")


def test_a_turned_photo_is_cropped_as_it_was_measured(tmp_path: Path) -> None:
    """A photo that a telephone saved lying, with the face where the upright one has it."""
    upright = np.zeros((_WIDE[1], _WIDE[0], 3), np.uint8)
    upright[10:30, 20:40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.rot90(upright).copy()).save(path, exif=exif)
    record = _build(path.parent, tmp_path / "out")[0]
    portrait = open_portrait(record, Square.around((20, 10, 40, 30), scale=1.0), SIZE)
    assert portrait.photo[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4].min() > 200


def test_metadata_must_name_files(tmp_path: Path) -> None:
    _photo(tmp_path / "a.png")
    (tmp_path / "portraits.jsonl").write_text(json.dumps({"person": "x"}) + "\n")
    with pytest.raises(InvalidData, match="'file'"):
        _build(tmp_path, tmp_path / "out")
