"""Is a dataset whole: its files are those of the manifest, and every record says what its photo shows."""

from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import ValidationError

from consistentid.dataset.files import sha256
from consistentid.dataset.manifest import Manifest, ShardFile
from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.schema import SCHEMA
from consistentid.errors import first_line
from consistentid.faces.regions import LABEL_NAMES, region_masks

_BATCH = 8  # records in memory


def validate(folder: Path, *, progress: Callable[[int], object] = lambda _: None) -> Iterator[str]:
    """Problems of a dataset, one sentence each, as they are found; nothing when it is whole.

    Args:
        folder: of the dataset.
        progress: told how many records were looked at since the last call.

    Raises:
        InvalidData: the folder holds no finished dataset.
    """
    manifest = Manifest.read(folder)
    people: set[str] = set()
    ids: Counter[str] = Counter()
    for shard in manifest.shards:
        problem = _file_problem(folder, shard)
        if problem:
            yield f"{shard.name}: {problem}"
            progress(shard.rows)
            continue
        for number, row in enumerate(_rows(folder / shard.name)):
            ids[str(row["id"])] += 1
            people.add(str(row["person"]))
            yield from (f"{shard.name}, record {number} ({row['id']}): {each}" for each in _row_problems(row, manifest))
            progress(1)
    yield from (f"{count} records have the id {name}" for name, count in ids.items() if count > 1)
    if ids.total() == manifest.rows and len(people) != manifest.people:
        yield f"manifest.json says {manifest.people} people, the records name {len(people)}"
    named = {shard.name for shard in manifest.shards}
    for path in sorted(folder.rglob("*.parquet")):
        if path.relative_to(folder).as_posix() not in named:
            yield f"{path.relative_to(folder).as_posix()}: manifest.json does not name it"


def _file_problem(folder: Path, shard: ShardFile) -> str | None:
    """What is wrong with a shard as a file."""
    path = folder / shard.name
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != shard.bytes or sha256(path) != shard.sha256:
        return "is not the file that manifest.json names (its checksum differs)"
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        return f"is no Parquet file ({first_line(error)})"
    if not file.schema_arrow.equals(SCHEMA):
        return "has other columns than records have"
    return None if file.metadata.num_rows == shard.rows else f"has {file.metadata.num_rows} records, not {shard.rows}"


def _rows(path: Path) -> Iterator[dict[str, object]]:
    for batch in pq.ParquetFile(path).iter_batches(_BATCH, use_threads=False):
        yield from batch.to_pylist()


def _row_problems(row: dict[str, object], manifest: Manifest) -> Iterator[str]:
    try:
        record = FGIDRecord.model_validate(row)
    except ValidationError as error:
        yield from (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return
    size = (record.width, record.height)
    photo = _decoded(record.photo)
    if isinstance(photo, str):
        yield f"its photo cannot be decoded ({photo})"
    elif photo.size != size or photo.mode != "RGB":
        yield f"its photo is {photo.mode}, {photo.width} x {photo.height}, not RGB, {size[0]} x {size[1]}"
    yield from _label_map_problems(record)
    left, top, right, bottom = record.box
    if not (left < right and top < bottom and left < size[0] and top < size[1] and right > 0 and bottom > 0):
        yield "its box is empty or outside the photo"
    if not np.isfinite(record.landmarks).all():
        yield "a landmark is no number"
    identity = record.identity
    if len(identity) != manifest.identity_dim:
        yield f"its identity embedding has {len(identity)} numbers, not {manifest.identity_dim}"
    elif not np.isfinite(identity).all() or not identity.any():
        yield "its identity embedding is no number, or nothing but zeros"
    if record.recogniser != manifest.recogniser:
        yield f"its recogniser is {record.recogniser!r}, that of the manifest {manifest.recogniser!r}"


def _label_map_problems(record: FGIDRecord) -> Iterator[str]:
    label_map = _decoded(record.label_map)
    if isinstance(label_map, str):
        yield f"its label map cannot be decoded ({label_map})"
    elif label_map.mode != "L" or label_map.size != (record.width, record.height):
        yield (
            f"its label map is {label_map.mode}, {label_map.width} x {label_map.height}, "
            f"not L, {record.width} x {record.height}"
        )
    elif np.asarray(label_map).max() >= len(LABEL_NAMES):
        yield f"its label map has the class {np.asarray(label_map).max()}; the last one is {len(LABEL_NAMES) - 1}"
    elif record.regions != tuple(region_masks(np.asarray(label_map))):
        yield "its regions are not those that the label map shows"


def _decoded(content: bytes) -> Image.Image | str:
    """The image, or why there is none."""
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return first_line(error)
    return image
