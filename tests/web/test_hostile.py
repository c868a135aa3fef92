"""Hundreds of files and bodies that mean harm: each is refused in one sentence, and nothing of it stays."""

import base64
import io
import json
import pickle  # noqa: TID251  written here to be refused
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from consistentid.errors import UnreadableImage
from consistentid.web.config import ServerConfig
from consistentid.web.uploads import checked_photo

MAX_MEMORY = 2 << 30  # bytes


def encoded(kind: str, size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    content = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(content, kind, **options)
    return content.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    """A PNG that says it has so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


class Runs:
    """Says on unpickling that it was unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def hostile_photos() -> Iterator[tuple[str, bytes]]:
    """Name and content; every one is to be refused."""
    whole = {kind: encoded(kind) for kind in ("JPEG", "PNG", "WEBP")}
    for side in (7000, 20_000, 100_000, 2**31 - 1):
        yield f"bomb-{side}", png(side, side, data=zlib.compress(bytes(10_000_000), 9))
    yield "bomb-text", png(64, 64, (b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9)))
    yield "bomb-icc", png(64, 64, (b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 9)))
    yield "bomb-itxt", png(64, 64, (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(100_000_000), 9)))
    yield "no-pixels", png(0, 0)
    yield "short-data", png(64, 64, data=zlib.compress(b"x"))
    yield "no-zlib", png(64, 64, data=b"x" * 100)
    for kind, content in whole.items():
        for part in range(1, 16):
            yield f"truncated-{kind}-{part}", content[: len(content) * part // 16]
        yield f"header-{kind}", content[:12]
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>alert(1)</script></svg>'
    yield "svg", svg
    yield "xml-bomb", b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>'
    yield "html", b"<html><script>alert(1)</script></html>"
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"
    yield "pdf", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil.txt", bytes(1_000_000))
    yield "zip", archive.getvalue()
    yield "pickle", pickle.dumps(Runs())
    yield "pickle-old", pickle.dumps(Runs(), protocol=0)
    yield "elf", b"\x7fELF" + bytes(200)
    for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "DDS", "ICNS", "JPEG2000"):
        yield f"other-{kind}", encoded(kind)
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    for kind in ("PNG", "WEBP", "GIF"):
        content = io.BytesIO()
        frames[0].save(content, kind, save_all=True, append_images=frames[1:])
        yield f"animation-{kind}", content.getvalue()
    for number, (header, length) in enumerate(
        [
            (b"{}", None), (b"{}", 2**63), (b"{}", 2**64 - 1), (b"", 0), (b"\xff" * 64, None), (b"{" * 5000, None),
            (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}', None),
            (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[8,0]}}', None),
        ]
    ):  # fmt: skip
        yield f"safetensors-{number}", safetensors(header, length)
    for number in range(12):
        yield f"noise-{number}", random.Random(number).randbytes(10 ** (number % 5) + number)
    for number, prefix in enumerate(
        (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"RIFF\x10\0\0\0WEBP")
    ):
        for seed in range(8):
            yield f"magic-{number}-{seed}", prefix + random.Random(seed).randbytes(200 * seed)


def fuzzed_photos() -> Iterator[tuple[str, bytes]]:
    """Real files with bytes changed, and polyglots: they may be pictures still."""
    for kind in ("JPEG", "PNG", "WEBP"):
        content = encoded(kind)
        for seed in range(30):
            dice, changed = random.Random(f"{kind}{seed}"), bytearray(content)
            for _ in range(1 + seed):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            yield f"fuzzed-{kind}-{seed}", bytes(changed)
        for name, tail in (
            ("zip", b"PK\x05\x06" + bytes(18)),
            ("html", b"<script>alert(1)</script>"),
            ("pickle", pickle.dumps(Runs())),
        ):
            yield f"polyglot-{kind}-{name}", content + tail


def hostile_bodies() -> Iterator[tuple[str, bytes, str]]:
    """Name, body and content type; every one is to be refused."""
    photo = base64.b64encode(encoded("PNG")).decode()
    for name, changes in {
        "long-prompt": {"prompt": "x" * 10_000_000},
        "long-negative": {"negative_prompt": "y" * 5000},
        "long-words": {"words": {"eyes": "z" * 5000}},
        "many-words": {"words": {f"part{number}": "a" for number in range(2000)}},
        "many-weights": {"weights": {f"part{number}": 1 for number in range(5000)}},
        "many-same": {"others": {"same": [photo] * 40}},
        "parts": {"others": {"parts": {"../../etc/passwd": photo}}},
        "role-photo": {"others": {"parts": {"photo": photo}}},
        "role-blend": {"others": {"parts": {"blend": photo}}},
        "seed-large": {"seed": 2**64}, "seed-negative": {"seed": -1}, "seed-float": {"seed": 0.5},
        "seed-huge": {"seed": 10**400}, "images": {"num_images": 10**9}, "steps": {"steps": 10**9},
        "size": {"size": [10**9, 10**9]}, "size-negative": {"size": [-8, -8]}, "size-odd": {"size": [129, 129]},
        "size-deep": {"size": [[128], 128]}, "guidance": {"guidance": 1e308}, "scheduler": {"scheduler": "os.system"},
        "scheduler-path": {"scheduler": "../../etc/passwd"}, "scheduler-dunder": {"scheduler": "__class__"},
        "scheduler-pipeline": {"scheduler": "StableDiffusionPipeline"}, "face": {"face": "../../x"},
        "face-negative": {"face": -1}, "regions": {"regions": ["../../x"]},
        "regions-many": {"regions": ["eyes"] * 10**5},
        "photo-path": {"photo": "/etc/passwd"}, "photo-url": {"photo": "http://127.0.0.1/"},
        "photo-null": {"photo": None},
        "photo-list": {"photo": [1]}, "photo-empty": {"photo": ""}, "merge": {"merge_step": "nan"},
        "template": {"scheduler": "{{7*7}}"}, "null-prompt": {"prompt": None}, "unknown": {"__class__": "x"},
        "owner": {"owner": "somebody"}, "id": {"id": "../../x"}, "weights-nan": {"weights": {"eyes": float("nan")}},
        "weights-inf": {"weights": {"eyes": float("inf")}}, "identity": {"identity_scale": -1}, "blend": {"blend": 2},
    }.items():  # fmt: skip
        yield name, json.dumps({"prompt": "a portrait", "photo": photo, **changes}).encode(), "application/json"
    for name, text in {
        "empty": b"", "null": b"null", "list": b"[]", "number": b"1e999", "deep": b"[" * 100_000,
        "deep-object": b'{"a":' * 50_000,
        "utf8": b'{"prompt": "\xff\xfe", "photo": ""}', "surrogate": b'{"prompt": "\\ud800", "photo": ""}',
        "bom": b"\xef\xbb\xbf{}",
        "utf16": '{"prompt": "a"}'.encode("utf-16"), "nul": b"\0" * 100, "pickle": pickle.dumps({"prompt": "a"}),
        "twice": b'{"prompt": "a", "prompt": "b"}', "comment": b"{} // x", "open": b'{"prompt": "a',
    }.items():  # fmt: skip
        yield f"json-{name}", text, "application/json"
    edge = "multipart/form-data; boundary=x"
    field = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    file = field % (b"photo", b'; filename="../../../../tmp/evil.png"', encoded("PNG"))
    for name, text in {
        "no-end": file, "no-request": file + b"--x--\r\n", "no-photo": field % (b"request", b"", b"{}") + b"--x--\r\n",
        "photo-is-text": field % (b"photo", b"", b"text") + field % (b"request", b"",
        b'{"prompt": "a"}') + b"--x--\r\n",
        "request-is-file": file + field % (b"request", b'; filename="a"', b'{"prompt": "a"}') + b"--x--\r\n",
        "bad-request": file + field % (b"request", b"", b"\xff") + b"--x--\r\n",
        "no-name": b"--x\r\n\r\nabc\r\n--x--\r\n",
        "unknown": file + field % (b"../../x", b"", b"a") + b"--x--\r\n", "garbage": bytes(range(256)) * 40,
        "many-fields": b"".join(field % (b"f%d" % number, b"", b"a") for number in range(3000)) + b"--x--\r\n",
        "many-files": b"".join(field % (b"same", b'; filename="a"', b"a") for _ in range(300)) + b"--x--\r\n",
        "long-field": file + field % (b"request", b"", b"x" * 2_000_000) + b"--x--\r\n",
        "odd-part": file + field % (b"parts.../../x", b'; filename="a"', b"a") + b"--x--\r\n",
        "long-header": b"--x\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n", "null-name": field % (b"\0", b"",
        b"a") + b"--x--\r\n",
    }.items():  # fmt: skip
        yield f"form-{name}", text, edge
    yield "form-no-boundary", file, "multipart/form-data"
    yield "form-odd-boundary", file, 'multipart/form-data; boundary=";;"'
    for kind in (
        "",
        "text/xml",
        "application/x-python-pickle",
        "application/octet-stream",
        "image/png",
        "application/x-www-form-urlencoded",
    ):
        yield f"type-{kind}", encoded("PNG"), kind


REFUSED = [*hostile_photos()]
FUZZED = [*fuzzed_photos()]
BODIES = [*hostile_bodies()]


def memory(kind: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since the peak was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{kind}:")).split()[1])


def forgotten_peak() -> int:
    """Let the peak begin anew, because other tests of this process use a lot, and return what is used now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


@pytest.fixture
def quiet(client: TestClient, config: ServerConfig) -> Iterator[TestClient]:
    """A server that must have stored nothing outside its folders at the end, and never have used much more memory."""
    at_first = forgotten_peak()
    before = {path for path in config.store.parent.rglob("*") if config.store not in path.parents}
    yield client
    assert {path for path in config.store.parent.rglob("*") if config.store not in path.parents} == before
    assert not Path("unpickled").exists()
    assert not Path("/tmp/evil.png").exists()
    assert memory("VmHWM") - at_first < MAX_MEMORY


def refused(answer: Any, name: str) -> None:
    assert 400 <= answer.status_code < 500, (name, answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json", name
    problem = answer.json()
    assert "Traceback" not in answer.text
    assert "/site-packages/" not in answer.text
    assert len(problem["detail"]) < 2000, name


def test_there_are_enough_cases() -> None:
    assert len(REFUSED) + len(FUZZED) + len(BODIES) + len(PATHS) >= 300


def test_hostile_photos_are_refused(quiet: TestClient, quick: dict[str, Any], config: ServerConfig) -> None:
    for number, (name, content) in enumerate(REFUSED):
        files = {"photo": (("../../../../tmp/evil.png", "a\0b", "CON", "x" * 500)[number % 4], content)}
        refused(quiet.post("/v1/portraits", files=files, data={"request": json.dumps(quick)}), name)
    assert not any((config.store / "files").iterdir())


def test_fuzzed_photos_do_no_harm(quiet: TestClient) -> None:
    for _, content in FUZZED:
        with suppress(UnreadableImage):
            assert checked_photo(content, max_pixels=10**6).mode == "RGB"


def test_hostile_bodies_are_refused(quiet: TestClient, config: ServerConfig) -> None:
    answers = {
        name: quiet.post("/v1/portraits", content=body, headers={"content-type": kind}) for name, body, kind in BODIES
    }
    assert [name for name, answer in answers.items() if not 400 <= answer.status_code < 500] == []
    for name, answer in answers.items():
        refused(answer, name)
    assert not any((config.store / "files").iterdir())


PATHS = [
    f"/v1/portraits/{odd}{tail}"
    for odd in (
        "..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f", "..%5c", "%00", "%ff%fe", "a" * 5000,
        "0" * 32,
        "%0d%0aSet-Cookie:a=b", "' OR 1=1 --", "{{7*7}}",
    )
    for tail in ("", "/events", "/record", "/images/0", "/images/-1", "/images/../../jobs.sqlite", "/images/9999999999")
]  # fmt: skip


def test_odd_paths_lead_nowhere(quiet: TestClient) -> None:
    for path in PATHS:
        answer = quiet.get(path)
        if answer.url.path.rstrip("/") == "/v1/portraits":  # the client took the dots away
            continue
        refused(answer, path)
        assert "set-cookie" not in answer.headers
    for name in ("Idempotency-Key", "Authorization"):
        for value in ("x" * 1000, "\xff", "a\tb", ""):
            headers = {name: value.encode("latin-1"), "content-type": "application/json"}
            refused(quiet.post("/v1/portraits", content=b"{}", headers=headers), f"{name} {value[:5]!r}")
