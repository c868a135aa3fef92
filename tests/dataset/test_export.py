"""Other layouts hold what the records hold, and are read back as sources."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from consistentid.dataset import export as export_module
from consistentid.dataset.builder import build_dataset
from consistentid.dataset.captions import TemplateCaptioner
from consistentid.dataset.export import LIST_NAME, Layout, export
from consistentid.dataset.quality import Rules
from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.sources import items_of
from consistentid.dataset.sources.item import Content
from consistentid.dataset.stages import Stages
from consistentid.dataset.validation import validate
from consistentid.errors import InvalidData
from consistentid.faces.detection import DetectedFace


def _read_back(source: Path) -> list[Content]:
    return [item.read() for item in items_of([source]) if not isinstance(item, Path)]


def _is_in(content: Content, record: FGIDRecord) -> None:
    assert content.photo == record.photo
    assert content.label_map == record.label_map
    for name in ("person", "source", "licence", "gender", "age", "caption", "facial_caption"):
        assert getattr(content.about, name) == getattr(record, name)


def test_the_release_layout_is_read_back(drawn_dataset: Path, tmp_path: Path) -> None:
    dataset, told = FGIDDataset.open(drawn_dataset), list[int]()
    export(dataset, tmp_path / "out", layout="release", progress=told.append)
    assert sum(told) == len(dataset)
    contents = _read_back(tmp_path / "out" / LIST_NAME)
    for content, record in zip(contents, dataset, strict=True):
        _is_in(content, record)
        assert content.identity_embedding is not None
        assert np.array_equal(content.identity_embedding, record.identity)
    first = json.loads((tmp_path / "out" / LIST_NAME).read_text())[0]
    assert set(first) == {
        "resize_IMG", "parsing_mask_IMG", "vqa_llva", "vqa_llva_more_face_detail", "id_embed_file_resize",
        "id_embed_file_origin", "person", "source", "licence", "gender", "age",
    }  # fmt: skip


def test_tars_are_read_back(drawn_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "_PER_TAR", 3)
    dataset = FGIDDataset.open(drawn_dataset)
    export(dataset, tmp_path / "out", layout="webdataset")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["00000.tar", "00001.tar", "00002.tar"]
    for content, record in zip(_read_back(tmp_path / "out"), dataset, strict=True):
        _is_in(content, record)
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        assert tar.getnames()[:3] == [f"{0:016x}.{suffix}" for suffix in ("png", "label_map.png", "json")]
        member = tar.extractfile(tar.getnames()[2])
        assert member is not None
        stated = json.load(member)
    assert stated == json.loads(dataset[0].model_dump_json(exclude={"photo", "label_map"}, exclude_none=True))


@pytest.mark.parametrize("layout", ["release", "webdataset"])
def test_exports_are_the_same_bytes_each_time(drawn_dataset: Path, tmp_path: Path, layout: Layout) -> None:
    for name in "ab":
        export(FGIDDataset.open(drawn_dataset), tmp_path / name, layout=layout)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert files
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


class _Detector:
    """One face in every photo."""

    name = "dlib"
    embedding_dim = 4

    def detect(self, photo: np.ndarray) -> list[DetectedFace]:
        points = np.array([[22, 15], [33, 15], [28, 22], [22, 27], [34, 27]], np.float32)
        return [DetectedFace((16, 8, 40, 32), points, np.full(4, photo.mean(), np.float32), 1.0)]


class _NoParser:
    """Not needed: label maps are exported."""

    name = "none"

    def parse(self, photo: np.ndarray, face: DetectedFace) -> np.ndarray:
        raise AssertionError("the label map was lost")


@pytest.mark.parametrize(("layout", "source"), [("release", LIST_NAME), ("webdataset", "")])
def test_what_is_built_from_an_export_is_the_same(
    drawn_dataset: Path, tmp_path: Path, layout: Layout, source: str
) -> None:
    before = FGIDDataset.open(drawn_dataset)
    export(before, tmp_path / "out", layout=layout)
    settings = BuildSettings(rules=Rules(min_side=1, min_face=0, min_sharpness=0), near_duplicates=False)
    build_dataset(
        [tmp_path / "out" / source],
        tmp_path / "again",
        settings=settings,
        stages=lambda: Stages(_Detector(), _NoParser(), TemplateCaptioner(), settings),
    )
    assert list(validate(tmp_path / "again")) == []
    for old, new in zip(before, FGIDDataset.open(tmp_path / "again"), strict=True):
        for name in ("photo", "person", "source", "licence", "gender", "age", "caption", "facial_caption", "regions"):
            assert getattr(new, name) == getattr(old, name), name
        assert np.array_equal(new.open_label_map(), old.open_label_map())
        if layout == "release":
            assert new.identity_embedding == old.identity_embedding


def test_an_export_appears_whole_or_not_at_all(drawn_dataset: Path, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    dataset = FGIDDataset.open(drawn_dataset)
    with pytest.raises(KeyboardInterrupt):
        export(dataset, tmp_path / "out", layout="release", progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidData, match="exists; export into a new folder"):
        export(dataset, tmp_path / "out", layout="release")
