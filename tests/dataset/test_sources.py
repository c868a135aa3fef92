"""Every kind of source -> items -> bytes and what is stated of them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from consistentid.dataset.sources import ITEM, Item, items_of
from consistentid.dataset.sources.item import About, Content, Rejection
from consistentid.errors import InvalidData


def _items(*sources: Path) -> list[Item]:
    """The items, after a journey to a worker."""
    found = [each for each in items_of(sources) if not isinstance(each, Path)]
    return [ITEM.validate_json(item.model_dump_json()) for item in found]


def _read(*sources: Path) -> list[Content]:
    return [item.read() for item in _items(*sources)]


def _put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_folder_with_metadata_and_label_maps(tmp_path: Path) -> None:
    stated = [
        {
            "file": "photos/b.JPG",
            "person": "x",
            "licence": "CC0",
            "source": "S",
            "gender": "woman",
            "age": 30,
            "year": 2,
        },
        {"file": "photos/a/c.png", "gender_estimated": "man"},
        {"file": "photos/gone.png"},
    ]
    _put(tmp_path / "portraits.jsonl", "\n".join(map(json.dumps, stated)))
    for name in ("photos/b.JPG", "photos/a/c.png", "d.webp", ".hidden.jpg", "notes.txt", "label_maps/b.png"):
        _put(tmp_path / name, name)
    listed = list(items_of([tmp_path]))
    assert [each for each in listed if isinstance(each, Path)] == [tmp_path / "notes.txt"]
    items = _items(tmp_path)
    assert [item.origin for item in items] == ["d.webp", "photos/a/c.png", "photos/b.JPG", "gone.png"]
    assert {item.source for item in items} == {tmp_path.name}
    c, b = items[1].read(), items[2].read()
    assert b.about == About(person="x", licence="CC0", source="S", gender="woman", age=30)
    assert b.photo == b"photos/b.JPG"
    assert b.label_map == b"label_maps/b.png"
    assert (c.about, c.label_map) == (About(gender_estimated="man"), None)
    with pytest.raises(Rejection, match=r"gone\.png cannot be opened") as caught:
        items[3].read()
    assert caught.value.rule == "missing"


def test_lists_name_photos_beside_them(tmp_path: Path) -> None:
    _put(tmp_path / "photos" / "a.jpg", b"a")
    text = _put(tmp_path / "list.txt", "photos/a.jpg\n\n photos/none.jpg \n")
    lines = _put(tmp_path / "list.jsonl", json.dumps({"file": "photos/a.jpg", "license": "MIT", "caption": "hello"}))
    items = _items(text, lines)
    assert [item.origin for item in items] == ["photos/a.jpg", "none.jpg", "photos/a.jpg"]
    assert items[0].read().photo == b"a"
    assert items[2].read().about == About(licence="MIT", caption="hello")


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def test_tars_are_read_by_key_and_to_where_they_are_broken(tmp_path: Path) -> None:
    whole = _tar(
        tmp_path / "1.tar",
        {
            "a/1.jpg": b"one",
            "a/1.json": b'{"person": 7, "url": "https://example.org/1"}',
            "a/1.txt": b"a caption\n",
            "a/1.label_map.png": b"labels",
            "a/2.cls": b"7",
            "a/3.PNG": b"three",
            "a/3.json": b"{",
            "4.jpeg": b"4" * 2000,
        },
    )
    listed = list(items_of([whole]))
    assert [each for each in listed if isinstance(each, Path)] == [whole / "a/2"]
    one, three, four = _items(whole)
    assert one.read().about == About(person="7", url="https://example.org/1", caption="a caption")
    assert (one.read().photo, one.read().label_map) == (b"one", b"labels")
    with pytest.raises(Rejection, match="no JSON object"):
        three.read()
    assert four.read().photo == b"4" * 2000
    cut = _put(tmp_path / "cut.tar", whole.read_bytes()[: 512 * 14 + 100])
    at_a_header = _put(tmp_path / "cut2.tar", whole.read_bytes()[: 512 * 14])
    scratched = _put(tmp_path / "scratched.tar", whole.read_bytes().replace(b"4.jpeg", b"5.jpeg"))
    zipped = _put(tmp_path / "zipped.tar", b"\x1f\x8b" + b"0" * 600)
    for broken in (cut, at_a_header, scratched, zipped):
        *_, last = _items(broken)
        with pytest.raises(Rejection, match="cannot be read beyond"):
            last.read()


def test_tables_of_parquet_and_arrow(tmp_path: Path) -> None:
    _put(tmp_path / "p" / "beside.jpg", b"beside")
    rows = [
        {"image": {"bytes": f"{number}".encode(), "path": None}, "text": f"photo {number}", "age": 20.0 + number}
        for number in range(5)
    ]
    rows += [{"image": {"bytes": None, "path": "beside.jpg"}}, {"image": None}]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "p" / "a.parquet", row_group_size=2)
    contents = [item.read() for item in _items(tmp_path / "p")[:6]]
    assert [content.photo for content in contents] == [b"0", b"1", b"2", b"3", b"4", b"beside"]
    assert contents[3].about == About(caption="photo 3", age=23)
    with pytest.raises(Rejection, match=r"a\.parquet#6 holds no photo"):
        _items(tmp_path / "p")[6].read()
    (tmp_path / "h").mkdir()
    with pa.ipc.new_stream(str(tmp_path / "h" / "data-00000.arrow"), table.schema) as writer:
        for batch in table.to_batches(max_chunksize=3):
            writer.write_batch(batch)
    arrow = _items(tmp_path / "h")
    assert [item.read().photo for item in arrow[:5]] == [b"0", b"1", b"2", b"3", b"4"]
    broken = _put(tmp_path / "broken.parquet", b"PAR1 no")
    with pytest.raises(Rejection, match=r"broken\.parquet cannot be read"):
        _items(broken)[0].read()
    pq.write_table(pa.table({"name": ["x"]}), tmp_path / "none.parquet")
    with pytest.raises(InvalidData, match="no column of photos"):
        _items(tmp_path / "none.parquet")


def test_the_released_layout(tmp_path: Path) -> None:
    listed = [
        {
            "origin_IMG": "15/1.png", "resize_IMG": "15/1_resize.png", "parsing_mask_IMG": "15/1_mask.png",
            "id_embed_file_resize": "15/1_resize_faceid.bin", "id_embed_file_origin": "15/1_faceid.bin",
            "vqa_llva": "A woman.", "vqa_llva_more_face_detail": "A small nose.",
        },
        {"resize_IMG": "15/2_resize.png", "vqa_llva_face_caption": "Large eyes.", "id_embed_file_resize": "x.bin"},
        {"resize_IMG": "15/3_resize.png"},
    ]  # fmt: skip
    path = _put(tmp_path / "JSON_all.json", json.dumps(listed))
    _put(tmp_path / "FGID_resize/15/1_resize.png", b"one")
    _put(tmp_path / "FGID_parsing_mask/15/1_mask.png", b"mask")
    _put(tmp_path / "15/2_resize.png", b"two")
    embedding = tmp_path / "FGID_faceID/15/1_resize_faceid.bin"
    embedding.parent.mkdir(parents=True)
    torch.save(torch.arange(4.0)[None], embedding)
    _put(tmp_path / "x.bin", b"no pickle")
    one, two = (item.read() for item in _items(path)[:2])
    assert (one.photo, one.label_map) == (b"one", b"mask")
    assert one.about == About(caption="A woman.", facial_caption="A small nose.")
    np.testing.assert_array_equal(one.identity_embedding, [0, 1, 2, 3])
    assert (two.photo, two.about.facial_caption, two.identity_embedding) == (b"two", "Large eyes.", None)
    with pytest.raises(Rejection, match="3_resize"):
        _items(path)[2].read()
    for text in ("{}", "[1]", '[{"a": 1}]', "["):
        with pytest.raises(InvalidData, match="JSON list"):
            _items(_put(path, text))


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="does not exist"):
        _items(tmp_path / "none")
    with pytest.raises(InvalidData, match="is no source"):
        _items(_put(tmp_path / "a.jpg", b""))
    _put(tmp_path / "portraits.jsonl", '{"person": "x"}')
    with pytest.raises(InvalidData, match="line 1"):
        _items(tmp_path)
    _put(tmp_path / "manifest.json", "{}")
    with pytest.raises(InvalidData, match="finished dataset"):
        _items(tmp_path)


def test_values_that_mean_nothing_state_nothing() -> None:
    assert About.of({"gender": 1, "age": "old", "person": "", "text": 5.0}) == About()
    assert About.of({"gender": "Female", "age": 200, "identity": 0}) == About(gender="woman", person="0")
