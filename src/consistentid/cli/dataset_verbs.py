"""`consistentid dataset inspect`, `validate`, `stats` and `export`: verbs that read a finished dataset."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from tqdm import tqdm

from consistentid.cli.dataset import need_libraries
from consistentid.errors import InvalidData, InvalidSettings

if TYPE_CHECKING:
    from consistentid.dataset.record import FGIDRecord
    from consistentid.dataset.shards import FGIDDataset


def inspect(folder: Path, /, *, index: int | None = None, out: Path | None = None) -> int:
    """Show what a dataset is, or one of its records.

    Args:
        folder: the dataset.
        index: which record, counted from 0, or from the end with -1; shown as JSON, with a picture of its regions.
        out: the picture; by default <id>.png.
    """
    dataset = _open(folder)
    if index is None:
        if out is not None:
            raise InvalidSettings("--out is for the picture of a record; say which with --index")
        _print_rows(_summary(dataset))
        return 0
    try:
        record = dataset[index]
    except IndexError:
        raise InvalidData(f"there is no record {index} in {folder}; it holds {len(dataset)}") from None
    picture = out or Path(f"{record.id}.png")
    _draw(record, picture)
    shown = record.model_dump(mode="json", exclude={"photo", "label_map", "identity_embedding"})
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    print(picture)
    return 0


def validate(folder: Path, /, *, progress: bool = True) -> int:
    """Check files, checksums and every record of a dataset; list the problems, and exit with 1 when there are any.

    Args:
        folder: the dataset.
        progress: show a progress bar.
    """
    need_libraries("pyarrow")
    from consistentid.dataset.manifest import Manifest
    from consistentid.dataset.validation import validate as problems_of

    problems, records = 0, Manifest.read(folder).rows
    with _bar(records, progress) as bar:
        for problem in problems_of(folder, progress=bar.update):
            problems += 1
            bar.write(problem, file=sys.stdout)
    print(f"{folder}: {records} records, {problems or 'no'} problem{'s' if problems != 1 else ''}")
    return 1 if problems else 0


def stats(folder: Path, /, *, json_: bool = False) -> int:
    """Count what a dataset holds: people, regions, face sizes, licences, rejections.

    Args:
        folder: the dataset.
        json_: print JSON instead of a table.
    """
    dataset = _open(folder)
    from consistentid.dataset.statistics import Spread, statistics

    found = statistics(dataset)
    if json_:
        print(found.model_dump_json(indent=2))
        return 0
    rows: list[tuple[str, str]] = []
    for name, value in found:
        label = name.replace("_", " ")
        if isinstance(value, dict):
            rows += [(f"{label}: {key}", f"{count:,}") for key, count in value.items()]
        elif isinstance(value, Spread):
            rows.append((label, f"{value.least:g} to {value.most:g}, half of them below {value.middle:g}"))
        else:
            rows.append((label, f"{value:,}"))
    _print_rows(rows)
    return 0


def export(
    folder: Path,
    out: Path,
    /,
    *,
    layout: Annotated[Literal["release", "webdataset"], Parameter(name="--format")],
    progress: bool = True,
) -> int:
    """Write a dataset in another layout.

    Args:
        folder: the dataset.
        out: a new folder.
        layout: release is that of the released FGID: a JSON list, photos, label maps, embeddings; webdataset is tars.
        progress: show a progress bar.
    """
    dataset = _open(folder)
    from consistentid.dataset.export import export as write

    with _bar(len(dataset), progress) as bar:
        write(dataset, out, layout=layout, progress=bar.update)
    print(out)
    return 0


def _open(folder: Path) -> "FGIDDataset":
    need_libraries("pyarrow")
    from consistentid.dataset.shards import FGIDDataset

    return FGIDDataset.open(folder)


def _bar(total: int, shown: bool) -> Any:
    return tqdm(total=total, unit="record", disable=not (shown and sys.stderr.isatty()))


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _summary(dataset: "FGIDDataset") -> list[tuple[str, str]]:
    manifest = dataset.manifest
    counts = manifest.counts
    size = sum(shard.bytes for shard in manifest.shards)
    left_out = counts.duplicates + sum(counts.rejected.values())
    return [
        ("photos", f"{len(dataset):,} of {manifest.people:,} people"),
        ("left out", f"{left_out:,} of {counts.items:,}, {counts.duplicates:,} of them copies"),
        ("files", f"{len(manifest.shards):,}, {size / 1e6:,.1f} MB"),
        ("sources", ", ".join(manifest.sources)),
        ("recogniser", f"{manifest.recogniser}, {manifest.identity_dim} numbers"),
        ("parser", manifest.parser),
        ("captioner", manifest.captioner),
        ("made by", f"consistentid {manifest.made_by}, format {manifest.format_version}"),
    ]


def _draw(record: "FGIDRecord", path: Path) -> None:
    from consistentid.dataset.files import appearing
    from consistentid.faces.overlay import draw_analysis

    if path.suffix.lower() != ".png":
        raise InvalidSettings(f"{path.name}: pictures are saved as .png")
    with appearing(path) as temporary:
        draw_analysis(record.analysis()).save(temporary, "PNG")
