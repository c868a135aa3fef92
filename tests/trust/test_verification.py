"""Files after what happens to files, files of others, and files that are none."""

import struct
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from consistentid.errors import UnreadableImage
from consistentid.generation.portrait import Portrait
from consistentid.trust.certificates import make_signer
from consistentid.trust.credentials import Statement, sign
from consistentid.trust.marking import Marking
from consistentid.trust.verification import verify_file


def _resaved(path: Path, picture: Image.Image, *, keep_text: bool) -> Path:
    """As an editor saves it: with its text chunks or without; the manifest is lost."""
    with Image.open(path) as image:
        image.load()
        info = PngImagePlugin.PngInfo()
        for key, value in image.text.items():  # type: ignore[attr-defined]
            info.add_itxt(key, value)
    target = path.with_name("edited.png")
    picture.save(target, pnginfo=info if keep_text else None)
    return target


def _one_pixel_off(path: Path) -> Image.Image:
    with Image.open(path) as image:
        pixels = np.asarray(image).copy()
    pixels[5, 7, 1] ^= 1
    return Image.fromarray(pixels)


def test_one_changed_pixel_is_noticed(portrait: Portrait, tmp_path: Path) -> None:
    path = portrait.save(tmp_path / "portrait.png")
    report = verify_file(_resaved(path, _one_pixel_off(path), keep_text=True))
    assert report.credentials is None
    assert report.verdict == "changed"
    assert report.changes == ("its pixels are not those that were saved",)
    with Image.open(path) as unchanged:
        assert verify_file(_resaved(path, unchanged, keep_text=True)).verdict == "intact"


def test_one_changed_pixel_under_the_signature_is_noticed(portrait: Portrait, tmp_path: Path) -> None:
    """Somebody puts other pixels between the chunks of a signed file."""
    path = portrait.save(tmp_path / "portrait.png")
    bare = BytesIO()
    _one_pixel_off(path).save(bare, "PNG")
    forged = _chunks(path.read_bytes())
    position = next(k for k, (name, _) in enumerate(forged) if name == b"IDAT")
    forged = [chunk for chunk in forged if chunk[0] != b"IDAT"]
    forged[position:position] = [chunk for chunk in _chunks(bare.getvalue()) if chunk[0] == b"IDAT"]
    target = tmp_path / "forged.png"
    target.write_bytes(_png(forged))
    report = verify_file(target)
    assert report.credentials is not None
    assert report.credentials.state == "invalid"
    assert "assertion.dataHash.mismatch" in report.credentials.problems
    assert len(report.changes) == 2
    assert report.verdict == "changed"


def test_a_forged_record_is_noticed(portrait: Portrait, tmp_path: Path) -> None:
    path = portrait.save(tmp_path / "portrait.png")
    forged = [(name, data.replace(b"laughing", b"weeping!")) for name, data in _chunks(path.read_bytes())]
    path.write_bytes(_png(forged))
    report = verify_file(path)
    assert report.pixels is True
    assert report.verdict == "changed"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_stripped_and_re_encoded_files(portrait: Portrait, tmp_path: Path, suffix: str) -> None:
    plain, marked = (replace(portrait, marking=Marking(watermark=on)) for on in (False, True))
    for made, verdict in ((plain, "unknown"), (marked, "changed")):
        path = made.save(tmp_path / f"portrait{suffix}")
        assert verify_file(path).verdict == "intact"
        with Image.open(path) as image:
            image.convert("RGB").save(tmp_path / "again.jpg", quality=60)
        report = verify_file(tmp_path / "again.jpg")
        assert report.verdict == verdict
        assert report.is_generated is (made is marked)
        assert report.made_by == ("consistentid" if made is marked else None)


def test_files_of_others(picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    picture.save(path)
    report = verify_file(path)
    assert (report.verdict, report.made_by, report.is_generated, report.label) == ("unknown", None, False, None)
    path.write_bytes(sign(path.read_bytes(), "image/jpeg", _Camera("1"), make_signer("A Camera")))
    report = verify_file(path)
    assert (report.verdict, report.made_by, report.is_ours) == ("intact", "Camera 1", False)
    assert report.credentials is not None
    assert report.credentials.signer == "A Camera"
    assert report.record is None


class _Camera(Statement):
    def manifest(self, media_type: str) -> dict[str, object]:
        capture = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
        return {
            "claim_generator_info": [{"name": "Camera", "version": "1"}],
            "format": media_type,
            "assertions": [
                {
                    "label": "c2pa.actions.v2",
                    "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": capture}]},
                }
            ],
        }


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"])
def test_what_is_no_picture_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(content)
    with pytest.raises(UnreadableImage) as caught:
        verify_file(tmp_path / "file.png")
    assert "\n" not in str(caught.value)


def test_hostile_files_never_raise_anything_else(portrait: Portrait, tmp_path: Path) -> None:
    content = bytearray(portrait.save(tmp_path / "portrait.png").read_bytes())
    draw = np.random.default_rng(0)
    path = tmp_path / "hostile.png"
    for _ in range(120):
        broken = content.copy()
        for position in draw.integers(8, len(broken), draw.integers(1, 20)):
            broken[position] = draw.integers(256)
        path.write_bytes(broken[: draw.integers(20, len(broken))] if draw.random() < 0.3 else broken)
        try:
            report = verify_file(path)
        except UnreadableImage:
            continue
        assert report.verdict != "intact"


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        found.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(600_000_000)
    with pytest.raises(UnreadableImage, match="larger than 500 MB"):
        verify_file(path)
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(UnreadableImage, match="too large to be decoded"):
        verify_file(path)
