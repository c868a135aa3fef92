"""Sources -> a finished dataset, in this process."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from consistentid.dataset.builder import build_dataset
from consistentid.dataset.manifest import Manifest
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.stages import Stages
from consistentid.errors import InvalidData, InvalidSettings, WeightsNotFound

Build = Callable[..., Manifest]
_WOMAN = "synthetic-woman"


@pytest.fixture
def build(tmp_path: Path, tiny_build: ModuleType) -> Build:
    """Builds tmp_path/out with the tiny models; other settings by name."""

    def run(*sources: Path, out: str = "out", **settings: Any) -> Manifest:
        used = tiny_build.SETTINGS.model_copy(update=settings)
        return build_dataset(sources, tmp_path / out, settings=used, stages=lambda: tiny_build.stages(used))

    return run


def _rejected(out: Path) -> dict[str, dict[str, str]]:
    lines = (out / "rejected.jsonl").read_text().splitlines()
    return {line["origin"]: line for line in map(json.loads, lines)}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _hostile(folder: Path, photo: Path) -> None:
    """Files as they lie about in the world: a bomb is small on the disk and 20,000 px wide."""
    face = Image.open(photo)
    folder.mkdir()
    (folder / "good.jpg").write_bytes(photo.read_bytes())
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(photo.read_bytes()[:20_000])
    (folder / "text.png").write_text("no image")
    (folder / "a jpeg.png").write_bytes(photo.read_bytes() + b"\0")
    (folder / "page.html").write_text("<html>")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    face.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    face.save(folder / "animated.gif", save_all=True, append_images=[face.rotate(9)])
    Image.effect_noise((200, 200), 40).convert("RGB").save(folder / "no face.png")
    five = Image.new("RGB", (5 * 200, 200))
    for place in range(5):
        five.paste(face.resize((200, 200)), (place * 200, 0))
    five.save(folder / "five.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    face.rotate(90).save(folder / "lying.jpg", exif=exif, quality=95)


def test_hostile_files_are_all_accounted_for(tmp_path: Path, sample_photos: dict[str, Path]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    _hostile(source, sample_photos[_WOMAN])
    settings = BuildSettings(detector="dlib hog", near_duplicates=False, chunk=5)
    manifest = build_dataset([source], out, settings=settings)
    rules = {name: line["rule"] for name, line in _rejected(out).items()}
    assert rules == {
        "zero.jpg": "unreadable",
        "truncated.jpg": "unreadable",
        "text.png": "unreadable",
        "bomb.png": "unreadable",
        "no face.png": "no_face",
        "five.png": "several_faces",
    }
    assert manifest.counts.rejected == {"no_face": 1, "several_faces": 1, "unreadable": 4}
    assert (manifest.counts.items, manifest.counts.ignored, manifest.people) == (11, 1, 1)
    records = {record.origin: record for record in FGIDDataset.open(out, verify=True)}
    assert set(records) == {"good.jpg", "a jpeg.png", "cmyk.jpg", "animated.gif", "lying.jpg"}
    good = records["good.jpg"]
    assert good.photo == sample_photos[_WOMAN].read_bytes()
    assert set(good.regions) >= {"face", "eyes", "nose", "mouth"}
    assert len({record.person for record in records.values()}) == 1
    for record in records.values():
        assert record.open_photo().size == (record.width, record.height) == (512, 512)
        assert record.open_label_map().shape == (512, 512)
        np.testing.assert_allclose(record.box, good.box, atol=12)  # the lying one was turned, label map and all
        assert Image.open(BytesIO(record.photo)).mode == "RGB"


def test_every_item_is_accepted_rejected_or_a_copy(patterns: Path, tmp_path: Path, build: Build) -> None:
    manifest = build(patterns)
    assert (manifest.counts.items, manifest.counts.accepted, manifest.counts.duplicates) == (20, 18, 1)
    assert [shard.rows for shard in manifest.shards] == [7, 7, 4]
    rejected = _rejected(tmp_path / "out")
    assert rejected["03 black.png"]["rule"] == "no_face"
    assert rejected["04 small copy.png"] == {  # though it came first
        "source": "in", "origin": "04 small copy.png", "rule": "duplicate", "reason": "a copy of 05.png of in",
    }  # fmt: skip
    opened = FGIDDataset.open(tmp_path / "out", verify=True)
    assert opened.column("origin") == [f"{seed:02d}.png" for seed in range(18)]
    assert manifest.people == len(set(opened.column("person"))) == 18
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "data", "manifest.json", "plots", "rejected.jsonl", "statistics.json",
    }  # fmt: skip
    kept = build(patterns, out="all", near_duplicates=False)
    assert (kept.counts.accepted, kept.counts.duplicates, kept.people) == (19, 0, 18)


def test_chunks_leave_no_trace_in_the_records(patterns: Path, tmp_path: Path, build: Build) -> None:
    build(patterns)
    build(patterns, out="whole", chunk=1000, caption_batch=1000)
    one, other = (_files(tmp_path / name / "data") for name in ("out", "whole"))
    assert one == other


def test_a_finished_dataset_is_left_as_it_is(patterns: Path, tmp_path: Path, build: Build) -> None:
    build(patterns)
    before = _files(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert build(patterns) == Manifest.read(tmp_path / "out")
    assert _files(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").rglob("*")}.items() <= times.items()
    with pytest.raises(InvalidData, match="other sources or settings"):
        build(patterns, max_side=100)
    (patterns / "new.png").write_bytes((patterns / "00.png").read_bytes())
    with pytest.raises(InvalidData, match="other sources or settings"):
        build(patterns)
    assert _files(tmp_path / "out") == before
    assert not (tmp_path / "out" / ".work").exists()


def test_an_unfinished_one_goes_on_or_refuses(patterns: Path, tmp_path: Path, tiny_build: ModuleType) -> None:
    class Stopping(Stages):
        def run(self, items: Any) -> Any:
            if any("10.png" in item.origin for item in items):
                raise KeyboardInterrupt
            return super().run(items)

    def build(settings: BuildSettings, make: type[Stages] = Stages) -> Manifest:
        models = tiny_build.TinyDetector(), tiny_build.TinyParser(), tiny_build.TemplateCaptioner()
        return build_dataset([patterns], tmp_path / "out", settings=settings, stages=lambda: make(*models, settings))

    with pytest.raises(KeyboardInterrupt):
        build(tiny_build.SETTINGS, Stopping)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".work" / "chunks").iterdir()}
    assert len(done) == 4
    with pytest.raises(InvalidData, match="other sources or settings"):
        build(tiny_build.SETTINGS.model_copy(update={"shard_rows": 3}))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".work" / "chunks").iterdir()} == done
    next((tmp_path / "out" / ".work" / "begun").iterdir()).unlink()  # else that chunk is done in a process of its own
    assert build(tiny_build.SETTINGS).counts.accepted == 18
    assert not (tmp_path / "out" / ".work").exists()


def test_what_cannot_be_built(patterns: Path, tmp_path: Path, build: Build) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidData, match="holds no dataset"):
        build(patterns, out="foreign")
    with pytest.raises(InvalidData, match="does not exist"):
        build(tmp_path / "none", out="new")
    with pytest.raises(InvalidSettings, match="no detector"):
        build_dataset([patterns], tmp_path / "new", settings=BuildSettings(detector="eyes"))
    with pytest.raises(WeightsNotFound, match="no face parser"):
        build_dataset([patterns], tmp_path / "new", settings=BuildSettings(parser="none"))
    with pytest.raises(InvalidData, match="list no photo"):
        build(foreign, out="new")
    assert not (tmp_path / "new").exists()
    for seed in range(18):
        (patterns / f"{seed:02d}.png").unlink()
    (patterns / "04 small copy.png").unlink()
    with pytest.raises(InvalidData, match=r"no usable photo.*no_face: 1"):
        build(patterns)
    assert json.loads((tmp_path / "out" / "rejected.jsonl").read_text())["rule"] == "no_face"


def test_what_a_source_states_travels_with_the_record(patterns: Path, tmp_path: Path, build: Build) -> None:
    stated = [
        {"file": "00.png", "person": "Ann", "licence": "CC0-1.0", "source": "S", "age": 40, "gender": "woman"},
        {"file": "01.png", "person": "Ann", "caption": "Ann outdoors."},
        {"file": "02.png", "caption": "A face.", "facial_caption": "A nose."},
    ]
    (patterns / "portraits.jsonl").write_text("\n".join(map(json.dumps, stated)))
    (patterns / "label_maps").mkdir()
    Image.new("L", (80, 80), 1).save(patterns / "label_maps" / "00.png")  # half as large
    Image.new("L", (160, 90), 1).save(patterns / "label_maps" / "03.png")
    Image.new("L", (160, 160), 19).save(patterns / "label_maps" / "06.png")
    Image.new("RGB", (160, 160)).save(patterns / "label_maps" / "07.png")
    (patterns / "label_maps" / "08.png").write_bytes(b"none")
    manifest = build(patterns)
    assert manifest.counts.rejected == {"label_map": 4, "no_face": 1}
    records = {record.origin: record for record in FGIDDataset.open(tmp_path / "out")}
    one, two, three = (records[f"0{number}.png"] for number in range(3))
    assert (one.person, one.licence, one.source, one.age, one.gender) == ("Ann", "CC0-1.0", "S", 40, "woman")
    assert (one.open_label_map() == 1).all()
    assert one.open_label_map().shape == (160, 160)
    assert one.regions == ("face",)
    assert two.person == "Ann"
    assert two.caption == "Ann outdoors."
    assert two.facial_caption
    assert (three.caption, three.facial_caption) == ("A face.", "A nose.")
    assert (three.licence, three.source, three.age, three.gender) == ("not stated", "in", None, None)
    assert manifest.people == len(records) - 1


def test_one_photo_that_fails_is_listed_and_a_missing_model_stops_the_build(
    patterns: Path, tmp_path: Path, tiny_build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(self: object, photo: np.ndarray, face: object) -> np.ndarray:
        if np.array_equal(photo, Image.open(patterns / "07.png")):
            raise RuntimeError("a bug")
        return np.ones(photo.shape[:2], np.uint8)

    def build(out: str) -> Manifest:
        return build_dataset([patterns], tmp_path / out, settings=tiny_build.SETTINGS, stages=tiny_build.stages)

    monkeypatch.setattr(tiny_build.TinyParser, "parse", parse)
    assert build("out").counts.rejected == {"failed": 1, "no_face": 1}
    assert _rejected(tmp_path / "out")["07.png"]["reason"] == "RuntimeError: a bug"

    def missing(self: object, photo: np.ndarray) -> None:
        raise WeightsNotFound("no weights here")

    monkeypatch.setattr(tiny_build.TinyDetector, "detect", missing)
    with pytest.raises(WeightsNotFound, match="no weights here"):
        build("other")


def test_large_photos_are_shrunk_with_their_label_maps(patterns: Path, tmp_path: Path, build: Build) -> None:
    (patterns / "label_maps").mkdir()
    Image.fromarray(_left_half(160)).save(patterns / "label_maps" / "00.png")
    build(patterns, max_side=130)
    record = FGIDDataset.open(tmp_path / "out")[0]
    assert (record.width, record.height) == record.open_photo().size == (130, 130)
    np.testing.assert_array_equal(record.open_label_map(), _left_half(130))
    assert Image.open(BytesIO(record.photo)).format == "JPEG"


def _left_half(side: int) -> np.ndarray:
    """A label map with skin on the left."""
    labels = np.zeros((side, side), np.uint8)
    labels[:, : side // 2] = 1
    return labels


@pytest.mark.parametrize(("length", "is_used"), [(64, True), (512, False)])
def test_the_released_layout(patterns: Path, tmp_path: Path, build: Build, length: int, is_used: bool) -> None:
    labels = np.ones((160, 160), np.uint8)
    labels[100:] = 12
    Image.fromarray(labels).save(tmp_path / "00_mask.png")
    torch.save(torch.full((1, length), 0.125), tmp_path / "00_faceid.bin")
    listed = {
        "resize_IMG": "in/00.png", "parsing_mask_IMG": "00_mask.png", "id_embed_file_origin": "00_faceid.bin",
        "vqa_llva": "A pattern.", "vqa_llva_more_face_detail": "It has one mouth.",
    }  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps([listed]))
    manifest = build(tmp_path / "all.json")
    (record,) = FGIDDataset.open(tmp_path / "out")
    assert manifest.sources == ("all.json",)
    assert (record.caption, record.facial_caption) == ("A pattern.", "It has one mouth.")
    np.testing.assert_array_equal(record.open_label_map(), labels)
    assert record.regions == ("face", "mouth")
    assert len(record.identity_embedding) == 64
    assert (record.identity == np.float32(0.125)).all() == is_used
