"""The dataset card: a README that says what a dataset holds, where it comes from and how it was made."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from consistentid.dataset.files import write_text
from consistentid.dataset.manifest import Manifest
from consistentid.dataset.plots import draw_plots
from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.statistics import Spread, Statistics, statistics

CARD_NAME = "README.md"
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_HUB_LICENCES = (  # as the hub calls them
    "apache-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit",
)  # fmt: skip

_USE = """\
```python
from pathlib import Path
from consistentid.dataset.shards import FGIDDataset

dataset = FGIDDataset.open(Path("FOLDER"))
record = dataset[0]  # record.open_photo(), record.open_label_map(), record.identity, record.caption, …
```

`datasets.load_dataset("FOLDER")` reads the same files. docs/data-format.md of consistentid describes every field."""

_PEOPLE = """\
The photos show people, and the identity embeddings are biometric data: keep them no longer and share them no wider than
the licences and the law allow. Names of people are those that the sources state; others are made up from the photos'
likeness and can be wrong. Label maps and captions are made by models where the source has none."""


def write_card(folder: Path) -> None:
    """Write `statistics.json`, `plots/*.png` and `README.md` of a finished dataset; the same bytes each time.

    Raises:
        InvalidData: the folder holds no finished dataset.
    """
    dataset = FGIDDataset.open(folder)
    found = statistics(dataset)
    found.write(folder)
    plots = draw_plots(folder, found, face_px=dataset.column("quality.face_px"))
    write_text(folder / CARD_NAME, card_text(dataset.manifest, found, plots))


def card_text(manifest: Manifest, found: Statistics, plots: Mapping[str, str]) -> str:
    """The card, with front matter that the Hugging Face hub reads.

    Args:
        manifest: of the dataset.
        found: of the dataset.
        plots: title of each plot -> its path inside the folder.
    """
    title = f"FGID records of {', '.join(manifest.sources)}"
    parts = [
        f"---\n{_front_matter(manifest, found, title)}\n---",
        f"# {title}",
        f"{found.photos:,} photos of {found.people:,} people with label maps of the face, an identity embedding and "
        "two captions each, made by `consistentid dataset build`.",
        _USE,
        "## What became of the sources",
        _table("", "photos", _fates(found)),
        "## What it holds",
        *(f"![{name}]({path})" for name, path in plots.items()),
        _spreads(found),
        "## Where it comes from",
        _table("source", "photos", found.sources),
        _table("licence", "photos", found.licences),
        "Each record names its own source and licence.",
        "## People",
        _PEOPLE,
        "## How it was made",
        f"Faces and embeddings: {manifest.recogniser} ({manifest.identity_dim} numbers). Label maps: "
        f"{manifest.parser}. Captions: {manifest.captioner}. Version {manifest.made_by} with these settings:",
        f"```json\n{json.dumps(manifest.settings, indent=2)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(manifest: Manifest, found: Statistics, title: str) -> str:
    from huggingface_hub import DatasetCardData

    named = {name.lower() for name in found.licences}
    is_known = len(named) == 1 and named <= set(_HUB_LICENCES)
    other: dict[str, Any] = {} if is_known else {"license_name": "see-each-record"}
    shards = sorted({str(PurePosixPath(shard.name).parent / "*.parquet") for shard in manifest.shards})
    data = DatasetCardData(
        license=named.pop() if is_known else "other",
        pretty_name=title,
        size_categories=[next((name for most, name in _SIZES if found.photos < most), "n>10M")],
        task_categories=["text-to-image"],
        tags=["faces", "fgid", "consistentid"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": shards}]}],
        **other,
    )
    return data.to_yaml().strip()


def _fates(found: Statistics) -> dict[str, int]:
    rejected = {f"rejected: {rule}": count for rule, count in found.rejected.items()}
    ends = {"left out as copies": found.duplicates, "files that are no photos": found.ignored}
    return {"listed": found.items, "in the dataset": found.photos} | rejected | ends


def _table(name: str, value: str, rows: Mapping[str, int]) -> str:
    lines = [f"| {key.replace('|', '/')} | {count:,} |" for key, count in rows.items()]
    return "\n".join([f"| {name} | {value} |", "|---|---:|", *lines])


def _spreads(found: Statistics) -> str:
    spreads = {
        "width of the face box, px": found.face_px,
        "overall caption, characters": found.caption,
        "facial caption, characters": found.facial_caption,
    }
    head = "| | least | 5 % below | half below | 95 % below | most |\n|---|---:|---:|---:|---:|---:|"
    return "\n".join([head, *(f"| {name} | {_numbers(spread)} |" for name, spread in spreads.items())])


def _numbers(spread: Spread) -> str:
    return " | ".join(f"{value:,g}" for _, value in spread)
