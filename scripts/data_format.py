"""Write docs/data-format.md from the models of records, manifest, statistics and rules.

Usage: python scripts/data_format.py

A test compares the page with what this makes.
"""

from collections.abc import Sequence
from inspect import cleandoc
from pathlib import Path
from textwrap import fill
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
from docstring_parser import parse
from pydantic import BaseModel

from consistentid.dataset.manifest import Counts, Manifest, ShardFile
from consistentid.dataset.quality import RULE_NAMES, Rules
from consistentid.dataset.record import FGIDRecord, Quality
from consistentid.dataset.schema import SCHEMA
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.statistics import Spread, Statistics
from consistentid.faces.regions import LABEL_NAMES, REGIONS

PAGE = Path(__file__).parents[1] / "docs" / "data-format.md"

TEXT = """\
# Data format

What `consistentid dataset build` writes and training reads. This page is made from the code:
`python scripts/data_format.py`.

```
FOLDER/
  manifest.json                        what the dataset holds and what made it, with checksums; written last
  data/train-00000-of-00012.parquet    records
  rejected.jsonl                       every photo that is no record, with the rule it breaks
  statistics.json                      counts
  README.md, plots/                    the dataset card
```

A folder without `manifest.json` is no finished dataset. The same sources, settings and models give the same bytes: no
file has a date, or the name of a machine. `consistentid dataset validate FOLDER` checks everything that is said here.

## Records

One row of the Parquet files, which `datasets.load_dataset` and any other reader of Parquet open too. A row group has at
most 32 records, so that one record is read without its file. Lengths are in pixels of the stored photo, x to the right
and y down; left and right are the viewer's.

{record}

`quality` is a struct:

{quality}

The label map has one byte a pixel:

{labels}

Regions are made of these classes; a record lists those of which its label map has a pixel:

{regions}

## rejected.jsonl

One JSON object a line: `source` and `origin` as in a record, `rule`, and `reason`, a sentence. Rules beside those
below: `unreadable` (no image, or a broken one), `unreadable_metadata`, `missing` (the source lists it, but it is not
there), `no_face`, `label_map` (the source's label map does not fit), `duplicate` (a copy or near copy of a record),
`crashed` (it ended the process that read it) and `failed` (anything else; the reason is the error).

## Rules

Limits of the settings, `--rules.min-face 96` on the command line.

{rules_doc}

{rules}

## manifest.json

{manifest}

Each of `shards`:

{shard}

`counts`, which add up (items = accepted + rejected + duplicates):

{counts}

`settings`:

{settings}

## statistics.json

{statistics}

Each of `face_px`, `caption` and `facial_caption`:

{spread}

## Other layouts

`consistentid dataset export FOLDER OUT --format release` writes that of the released FGID: `FGID.json`, a list of
objects that name files in the folders `FGID_resize` (`resize_IMG`, the photo), `FGID_parsing_mask`
(`parsing_mask_IMG`, the label map) and `FGID_faceID` (`id_embed_file_resize` and `id_embed_file_origin`, the identity
embedding), with the captions `vqa_llva` and `vqa_llva_more_face_detail` and with `person`, `source`, `licence`,
`gender` and `age`. Embeddings are saved by torch, because the release's trainer reads nothing else.

`--format webdataset` writes tars of 1,000 records: `ID.jpg` or `ID.png`, `ID.label_map.png`, and `ID.json` with all
other columns.

What is built from either of them has the same photos, label maps, captions, people and licences.
"""


def page() -> str:
    """The whole page."""
    return TEXT.format(
        record=_columns(list(SCHEMA), FGIDRecord),
        quality=_columns(list(SCHEMA.field("quality").type), Quality),
        labels=_table(("class", "name"), [(str(number), name) for number, name in enumerate(LABEL_NAMES)]),
        regions=_table(
            ("region", "classes"),
            [(region.name, ", ".join(LABEL_NAMES[label] for label in region.labels)) for region in REGIONS],
        ),
        rules_doc=fill(" ".join(cleandoc(Rules.__doc__ or "").split("\n\n")[1].split()), 120),
        rules=_rules(),
        manifest=_fields(Manifest),
        shard=_fields(ShardFile),
        counts=_fields(Counts),
        settings=_settings(),
        statistics=_fields(Statistics),
        spread=_fields(Spread),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _columns(columns: Sequence[pa.Field], model: type[BaseModel]) -> str:
    fields = model.model_fields
    rows = [(f"`{column.name}`", _arrow(column), fields[column.name].description or "") for column in columns]
    return _table(("column", "type", "what it is"), rows)


def _arrow(column: pa.Field) -> str:
    return _arrow_name(column.type) + (" or null" if column.nullable else "")


def _arrow_name(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "struct"
    if pa.types.is_list(kind):
        return f"list of {_arrow_name(kind.value_type)}"
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.list_size} × {_arrow_name(kind.value_type)}"
    return str(kind)


def _fields(model: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", _json_name(field.annotation), field.description or "")
        for name, field in model.model_fields.items()
    ]
    return _table(("field", "type", "what it is"), rows)


def _json_name(annotation: Any) -> str:
    """A type of a JSON file in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return f"object: {_json_name(arguments[0])} → {_json_name(arguments[1])}"
    if origin is tuple:
        return f"list of {_json_name(arguments[0])}"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is UnionType:
        return " or ".join(_json_name(each) for each in arguments)
    names = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null"}
    return names.get(annotation, "object" if isinstance(annotation, type) else "any value")


def _rules() -> str:
    rows = []
    for (name, field), rule in zip(Rules.model_fields.items(), RULE_NAMES, strict=True):
        rows.append((f"`{rule}`", f"`{name}`", str(field.default), str(field.description).partition(": ")[2]))
    return _table(("rule", "limit", "default", "what it is"), rows)


def _settings() -> str:
    texts = {each.arg_name: " ".join((each.description or "").split()) for each in parse(BuildSettings.__doc__).params}
    fields = BuildSettings.model_fields
    defaults = {name: "see above" if name == "rules" else str(field.default) for name, field in fields.items()}
    rows = [(f"`{name}`", default, texts[name].removesuffix(".")) for name, default in defaults.items()]
    return _table(("setting", "default", "what it is"), rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
