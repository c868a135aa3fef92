"""Photos -> PhotoRecords: what the embedded model's training reads until it reads FGID datasets."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from consistentid.errors import ConsistentIDError, InvalidData, NoFaceFound
from consistentid.faces.detection import DetectedFace, FaceDetector
from consistentid.faces.parsing import FaceParser
from consistentid.images import load_photo

logger = logging.getLogger(__name__)

RECORDS_NAME = "records.jsonl"
REJECTED_NAME = "rejected.jsonl"
METADATA_NAME = "portraits.jsonl"
Parsed = TypeVar("Parsed")
_LABEL_MAPS = "label_maps"
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class PhotoRecord(BaseModel):
    """A photo with everything training needs to know of it; source and licence travel along."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photo: Path
    person: str = Field(description="who it is; photos of one person share it")
    source: str
    licence: str
    box: tuple[float, float, float, float] = Field(description="left, top, right, bottom of the face, px")
    landmarks: tuple[tuple[float, float], ...] = Field(min_length=5, max_length=5, description="x and y, px")
    identity_embedding: tuple[float, ...]
    label_map: Path = Field(description="PNG of CelebAMask-HQ classes, as large as the photo")
    caption: str
    gender: str | None = Field(default=None, pattern="^(man|woman)$")


def build_records(
    photos: Path, out: Path, *, detector: FaceDetector, parser: FaceParser, caption: str
) -> list[PhotoRecord]:
    """Analyse every photo of a folder; photos that were done before are not done again.

    A file `portraits.jsonl` beside the photos may state `file`, `person`, `source`, `licence` and `gender` (or
    `gender_estimated`); a folder `label_maps` with PNGs of the same names, in the same subfolders (without the first,
    when that is `photos`), replaces the parser. Photos that cannot be used are listed with the reason in
    `rejected.jsonl`.

    Args:
        photos: a folder, searched with its subfolders.
        out: gets `records.jsonl`, `rejected.jsonl` and the label maps that the parser made.
        detector: finds the face, its landmarks and the identity embedding.
        parser: for photos without a label map.
        caption: the facial caption of every record.

    Raises:
        InvalidData: the folder holds no usable photo, or its metadata is malformed.
    """
    photos, out = photos.resolve(), out.resolve()
    files = photo_files(photos)
    out.mkdir(parents=True, exist_ok=True)
    metadata = _metadata(photos)
    known = {record.photo: record for record in read_records(out / RECORDS_NAME)}
    rejected = set(_whole_lines(out / REJECTED_NAME, lambda line: Path(json.loads(line)["photo"])))
    with (out / RECORDS_NAME).open("a") as good, (out / REJECTED_NAME).open("a") as bad:
        new = [path for path in files if path not in known and path not in rejected]
        for path in tqdm(new, desc="analysing photos", mininterval=5):
            about = metadata.get(str(path.relative_to(photos)), {})
            try:
                record = _record(path, about, photos, out, detector=detector, parser=parser, caption=caption)
            except ConsistentIDError as error:
                bad.write(json.dumps({"photo": str(path), "reason": str(error)}) + "\n")
                continue
            known[path] = record
            good.write(record.model_dump_json() + "\n")
            good.flush()
    usable = [known[path] for path in files if path in known]
    if not usable:
        raise InvalidData(f"no usable photo in {photos}; {out / REJECTED_NAME} says why for each")
    return usable


def read_records(path: Path) -> list[PhotoRecord]:
    """Records of a `records.jsonl`; an unfinished last line, left by a killed run, is dropped."""
    return _whole_lines(path, PhotoRecord.model_validate_json)


def _whole_lines(path: Path, parse: Callable[[str], Parsed]) -> list[Parsed]:
    found, lines = [], list(_lines(path))
    for number, line in enumerate(lines, 1):
        try:
            found.append(parse(line))
        except ValueError as error:
            if number < len(lines):
                raise InvalidData(f"{path}, line {number}, cannot be read; delete the line") from error
            _drop_last_line(path, line)
    return found


def _drop_last_line(path: Path, line: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(path.read_text().removesuffix(line))
    os.replace(temporary, path)


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        yield from (line for line in path.read_text().split("\n") if line)


def _metadata(photos: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for number, line in enumerate(_lines(photos / METADATA_NAME), 1):
        try:
            about = json.loads(line)
            found[about["file"]] = about
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidData(f"{photos / METADATA_NAME}, line {number}, must be JSON with a 'file'") from error
    return found


def photo_files(photos: Path) -> list[Path]:
    """Photos of a folder and its subfolders, without the label maps beside them.

    Raises:
        InvalidData: there is no such folder.
    """
    if not photos.is_dir():
        raise InvalidData(f"{photos} is no folder; give a folder of photos")
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in _PHOTO_SUFFIXES)
    return [path for path in found if _LABEL_MAPS not in path.relative_to(photos).parts]


def _record(
    path: Path,
    about: dict[str, Any],
    photos: Path,
    out: Path,
    *,
    detector: FaceDetector,
    parser: FaceParser,
    caption: str,
) -> PhotoRecord:
    photo = np.asarray(load_photo(path))
    faces = detector.detect(photo)
    if not faces:
        raise NoFaceFound(f"no face in {path.name}; use a photo in which the face is at least 64 px wide")
    return PhotoRecord(
        photo=path,
        person=about.get("person", path.relative_to(photos).with_suffix("").as_posix()),
        source=about.get("source", str(photos)),
        licence=about.get("licence", "not stated"),
        box=faces[0].box,
        landmarks=tuple((float(x), float(y)) for x, y in faces[0].landmarks),
        identity_embedding=tuple(float(value) for value in faces[0].identity_embedding),
        label_map=_label_map(path, photos, out, photo, faces[0], parser),
        caption=caption,
        gender=about.get("gender", about.get("gender_estimated")),
    )


def _label_map(path: Path, photos: Path, out: Path, photo: np.ndarray, face: DetectedFace, parser: FaceParser) -> Path:
    name = path.relative_to(photos).with_suffix(".png")
    given = photos / _LABEL_MAPS / (name.relative_to("photos") if name.parts[0] == "photos" else name)
    if given.is_file():
        with Image.open(given) as label_map:
            if label_map.size == (photo.shape[1], photo.shape[0]):
                return given
        raise InvalidData(f"{given} must be as large as {path.name}")
    made = out / _LABEL_MAPS / name
    made.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(parser.parse(photo, face)).save(made)
    return made
