"""Files as they are saved: signed, labelled, with or without their record."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistentid.errors import InvalidSettings, NotReproducible
from consistentid.generation.portrait import Portrait, read_settings
from consistentid.trust.certificates import load_signer, make_signer, save_signer
from consistentid.trust.credentials import Statement, check_signer, read_credentials, sign
from consistentid.trust.marking import Marking
from consistentid.trust.provenance import EDITED, GENERATED, Label
from consistentid.trust.verification import verify_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_is_signed_and_intact(portrait: Portrait, tmp_path: Path, suffix: str) -> None:
    path = portrait.save(tmp_path / f"portrait{suffix}")
    report = verify_file(path)
    assert report.verdict == "intact"
    assert report.credentials is not None
    assert report.credentials.state == "valid"
    assert report.credentials.sources == (GENERATED,)
    assert report.credentials.tool == "consistentid 0.1.0"
    assert report.pixels is True
    assert report.label == Label("consistentid 0.1.0", GENERATED, "stated", report.label.pixels)  # type: ignore[union-attr]
    assert not report.is_marked
    assert read_settings(path) == portrait.settings
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_lossless_files_hold_the_pixels(portrait: Portrait, tmp_path: Path) -> None:
    for suffix in (".png", ".webp"):
        with Image.open(portrait.save(tmp_path / f"portrait{suffix}")) as image:
            assert np.array_equal(np.asarray(image), np.asarray(portrait.image))


def test_the_signed_settings_tell_of_no_place_and_no_photo(portrait: Portrait, tmp_path: Path) -> None:
    found = verify_file(portrait.save(tmp_path / "portrait.png")).credentials
    assert found is not None
    assert found.generation is not None
    told = json.dumps(found.generation, ensure_ascii=False)
    assert "Jane Doe, “laughing” & 笑" in told
    assert "/home" not in told
    assert "a" * 64 not in told
    assert found.generation["model"] == "sd15"
    assert found.generation["loras"] == ["lora.safetensors:0.5"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_private_files_hold_no_text_and_no_photo(portrait: Portrait, tmp_path: Path, suffix: str) -> None:
    path = replace(portrait, marking=Marking(private=True)).save(tmp_path / f"portrait{suffix}")
    content = path.read_bytes()
    for secret in ("Jane", "jane", "a" * 64, "b" * 64):
        for encoding in ("utf-8", "utf-16-be", "utf-16-le"):
            assert secret.encode(encoding) not in content
    report = verify_file(path)
    assert report.verdict == "intact"
    assert report.record is not None
    assert report.record["weights_sha256"] == "c" * 64
    with pytest.raises(NotReproducible, match="without its prompt"):
        read_settings(path)


def test_long_records(portrait: Portrait, tmp_path: Path) -> None:
    long = replace(portrait, settings=portrait.settings.model_copy(update={"prompt": "x" * 2_000_000}))
    for suffix in (".png", ".webp"):
        assert read_settings(long.save(tmp_path / f"long{suffix}")) == long.settings
    with pytest.raises(InvalidSettings, match=r"does not fit into a JPEG; save the portrait as \.png"):
        long.save(tmp_path / "long.jpg")
    assert not (tmp_path / "long.jpg").exists()


def test_edits_name_their_original(portrait: Portrait, picture: Image.Image, tmp_path: Path) -> None:
    original = portrait.save(tmp_path / "original.jpg").read_bytes()
    for k, edited in enumerate((original, picture)):
        path = replace(portrait, edited=edited).save(tmp_path / f"{k}.png")
        report = verify_file(path)
        assert report.verdict == "intact"
        assert report.source == EDITED
        assert report.label is not None
        assert report.label.source == EDITED
        store = _manifests(path)
        manifest = store["manifests"][store["active_manifest"]]
        (actions,) = (one["data"]["actions"] for one in manifest["assertions"] if "actions" in one["label"])
        assert [action["action"] for action in actions] == ["c2pa.opened", "c2pa.edited"]
        (ingredient,) = manifest["ingredients"]
        assert ingredient["relationship"] == "parentOf"
        assert "thumbnail" not in ingredient
        assert len(store["manifests"]) == (2 if edited is original else 1)


def _manifests(path: Path) -> dict[str, dict[str, object]]:
    import c2pa

    with c2pa.Reader("image/png", BytesIO(path.read_bytes())) as reader:
        return json.loads(reader.json())


def test_a_signature_that_fails_does_not_cost_the_picture(
    portrait: Portrait, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = replace(make_signer("Nobody"), key=b"no key")
    path = replace(portrait, marking=Marking(signer=nobody)).save(tmp_path / "portrait.png")
    report = verify_file(path)
    assert report.credentials is None
    assert report.pixels is True
    (message,) = caplog.messages
    assert message.startswith("a picture is saved without a signature: ")
    assert "\n" not in message
    assert [each.name for each in tmp_path.iterdir()] == ["portrait.png"]


def test_own_certificates(portrait: Portrait, tmp_path: Path) -> None:
    folder = tmp_path / "configuration"
    path = save_signer(make_signer("Jane's studio"), folder)
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    signer = load_signer(path, folder / "key.pem")
    assert signer.name == "Jane's studio"
    assert "PRIVATE" not in repr(signer)
    check_signer(signer)
    saved = replace(portrait, marking=Marking(signer=signer)).save(tmp_path / "portrait.png")
    for trusted, state in ((path.read_text(), "trusted"), ("", "valid")):
        report = verify_file(saved, trusted=trusted)
        assert report.credentials is not None
        assert report.credentials.state == state
        assert report.credentials.signer == "Jane's studio"
    with pytest.raises(InvalidSettings, match="holds a certificate already"):
        save_signer(make_signer("Another"), folder)
    other = save_signer(make_signer("Another"), tmp_path / "other").parent
    with pytest.raises(InvalidSettings, match="is not the key of"):
        load_signer(path, other / "key.pem")
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_signer(path, tmp_path / "missing.pem")
    with pytest.raises(InvalidSettings, match="are no certificate with its key"):
        load_signer(folder / "key.pem", folder / "key.pem")
    with pytest.raises(InvalidSettings, match="cannot be the name"):
        make_signer("")


def test_credentials_of_a_signed_pixel_are_checked_against_the_pixel() -> None:
    pixel = BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    signed = sign(pixel.getvalue(), "image/png", Statement("1"), make_signer("Jane"))
    assert read_credentials(pixel.getvalue(), "image/png") is None
    found = read_credentials(signed, "image/png")
    assert found is not None
    assert found.problems == ()
