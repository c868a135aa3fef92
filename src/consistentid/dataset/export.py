"""A dataset in the layouts of other programs: the released FGID's, and WebDataset's tars."""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.sources.release import CAPTION, EMBEDDINGS, FACIAL_CAPTIONS, LABEL_MAP, PHOTO
from consistentid.errors import InvalidData

Layout = Literal["release", "webdataset"]
LIST_NAME = "FGID.json"
_PHOTOS, _LABEL_MAPS, _EMBEDDINGS = "FGID_resize", "FGID_parsing_mask", "FGID_faceID"
_PER_TAR = 1000  # records
_IMAGES = {"photo", "label_map"}
_STATED = ("person", "source", "licence", "gender", "gender_estimated", "age")


def export(
    dataset: FGIDDataset, out: Path, *, layout: Layout, progress: Callable[[int], object] = lambda _: None
) -> None:
    """Write a dataset in another layout, from which `consistentid dataset build` makes the same records again.

    release: `FGID.json`, a list of objects that name files in `FGID_resize` (photos), `FGID_parsing_mask` (label maps)
    and `FGID_faceID` (embeddings, saved by torch as the release's trainer reads them), with both captions and what is
    stated of the person. webdataset: tars of 1,000 records, each `ID.jpg` or `ID.png`, `ID.label_map.png` and
    `ID.json`.

    Args:
        dataset: what is written.
        out: a folder that does not exist yet; it appears when everything is written.
        layout: release or webdataset.
        progress: told how many records were written since the last call.

    Raises:
        InvalidData: the folder exists.
    """
    with _appearing_folder(out) as folder:
        write = _write_release if layout == "release" else _write_tars
        for _ in write(dataset, folder):
            progress(1)


@contextmanager
def _appearing_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside the wanted one, which gets its name when the block ends well."""
    if out.exists():
        raise InvalidData(f"{out} exists; export into a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=".", suffix=".part"))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes folders for the owner alone
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_release(dataset: FGIDDataset, folder: Path) -> Iterator[None]:
    for name in (_PHOTOS, _LABEL_MAPS, _EMBEDDINGS):
        (folder / name).mkdir()
    with (folder / LIST_NAME).open("w", encoding="utf-8") as listed:
        listed.write("[")
        for number, record in enumerate(dataset):
            entry = json.dumps(_release_entry(record, folder), ensure_ascii=False)
            listed.write(f"{',' if number else ''}\n{entry}")
            yield
        listed.write("\n]\n")


def _release_entry(record: FGIDRecord, folder: Path) -> dict[str, Any]:
    """The record's object in the list; its files are written."""
    import torch

    photo, label_map, embedding = f"{record.id}.{_photo_suffix(record)}", f"{record.id}.png", f"{record.id}.bin"
    (folder / _PHOTOS / photo).write_bytes(record.photo)
    (folder / _LABEL_MAPS / label_map).write_bytes(record.label_map)
    saved = BytesIO()  # a path would be written into the file
    torch.save(torch.from_numpy(record.identity), saved)
    (folder / _EMBEDDINGS / embedding).write_bytes(saved.getvalue())
    files = {PHOTO: photo, LABEL_MAP: label_map, **dict.fromkeys(EMBEDDINGS, embedding)}
    captions = {CAPTION: record.caption, FACIAL_CAPTIONS[0]: record.facial_caption}
    return files | captions | {key: value for key in _STATED if (value := getattr(record, key)) is not None}


def _write_tars(dataset: FGIDDataset, folder: Path) -> Iterator[None]:
    records = iter(dataset)
    for number, _ in enumerate(range(0, len(dataset), _PER_TAR)):
        with tarfile.open(folder / f"{number:05}.tar", "w") as tar:
            for record in islice(records, _PER_TAR):
                _add_record(tar, record)
                yield


def _add_record(tar: tarfile.TarFile, record: FGIDRecord) -> None:
    stated = json.dumps(record.model_dump(mode="json", exclude=_IMAGES, exclude_none=True), ensure_ascii=False)
    files = {_photo_suffix(record): record.photo, "label_map.png": record.label_map, "json": stated.encode()}
    for suffix, content in files.items():
        member = tarfile.TarInfo(f"{record.id}.{suffix}")  # without owner and time
        member.size = len(content)
        tar.addfile(member, BytesIO(content))


def _photo_suffix(record: FGIDRecord) -> str:
    """jpg or png, by the photo's bytes."""
    return "png" if record.photo.startswith(b"\x89PNG") else "jpg"
