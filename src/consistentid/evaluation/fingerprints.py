"""Hashes of code and files: what decides whether a cached result is still the right one."""

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from consistentid.faces.parsing import FaceParser


@cache
def code_sha256(*places: str) -> str:
    """Of the source of packages and modules of this library, such as `faces` and `evaluation/fgis.py`."""
    digest, root = hashlib.sha256(), Path(str(files("consistentid")))
    for place in places:
        path = root / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parser_identity(parser: FaceParser) -> str:
    """Which parser, and of which weights when they are in a folder or file."""
    source = Path(str(getattr(parser, "source", "")))
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    return " ".join([parser.name, str(source), *(file_sha256(file) for file in files if file.is_file())])


def key(**parts: object) -> str:
    """Of named values, for the name of a cached file."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
