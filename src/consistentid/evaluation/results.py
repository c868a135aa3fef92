"""The files of an evaluation: scores, numbers of every portrait, manifest, report."""

import csv
import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from consistentid.errors import InvalidData
from consistentid.evaluation.fingerprints import code_sha256, file_sha256
from consistentid.evaluation.pictures import Picture
from consistentid.evaluation.report.html import html
from consistentid.evaluation.report.markdown import markdown
from consistentid.evaluation.run import Evaluation
from consistentid.evaluation.scoring import Score
from consistentid.evaluation.worker import DRAWING_CODE, MEASURING_CODE, Worker
from consistentid.generation.portrait import write_text
from consistentid.generation.settings import explain
from consistentid.generation.versions import library_versions

SCORES, PICTURES, MANIFEST = "scores.json", "pictures.json", "manifest.json"


class PictureNumbers(BaseModel):
    """What is kept of one portrait for comparisons.

    Attributes:
        block: of the protocol; a portrait may be in several.
        method, subject, prompt, index, seed: which portrait.
        failure: why it was not measured.
        numbers: by metric; None where it could not be told.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: str
    method: str
    subject: str
    prompt: str
    index: int
    seed: int
    failure: str | None
    numbers: dict[str, float | None]


def save(evaluation: Evaluation, worker: Worker, out: Path) -> list[Path]:
    """Write everything; the paths of the report's files."""
    rows = [_kept(block, picture) for block, pictures in evaluation.blocks.items() for picture in pictures]
    contents = {
        SCORES: _json([_plain(asdict(score)) for score in evaluation.scores]),
        "scores.csv": _csv([asdict(score) for score in evaluation.scores], [field.name for field in fields(Score)]),
        PICTURES: _json([row.model_dump() for row in rows]),
        "pictures.csv": _pictures_csv(rows),
        MANIFEST: _json(manifest(evaluation, worker)),
        "report.md": markdown(evaluation),
        "report.html": html(evaluation),
    }
    for name, text in contents.items():
        write_text(out / name, text)
    return [out / "report.md", out / "report.html"]


def load_pictures(folder: Path) -> list[PictureNumbers]:
    """The numbers of every portrait of a finished evaluation.

    Raises:
        InvalidData: the folder holds none.
    """
    try:
        return [PictureNumbers.model_validate(row) for row in json.loads((folder / PICTURES).read_text())]
    except OSError:
        raise InvalidData(f"{folder} holds no finished evaluation: there is no {PICTURES} in it") from None
    except ValidationError as error:
        raise InvalidData(f"{folder / PICTURES} cannot be read: {explain(error)}") from None
    except ValueError as error:
        raise InvalidData(f"{folder / PICTURES} is no JSON ({error})") from None


def manifest(evaluation: Evaluation, worker: Worker) -> dict[str, object]:
    """Everything that the numbers depend on."""
    protocol = evaluation.protocol.model_dump_json()
    return {
        "config": evaluation.config.model_dump(mode="json"),
        "protocol": json.loads(protocol),
        "protocol_sha256": hashlib.sha256(protocol.encode()).hexdigest(),
        "weights": worker.identities,
        "judge": worker.judge.identity,
        "recognisers": [each.name for each in worker.judge.recognisers],
        "photos": {
            subject.name: {"reference": file_sha256(subject.reference), "gallery": file_sha256(subject.gallery)}
            for subject in evaluation.subjects
        },
        "excluded": dict(evaluation.excluded),
        "code": {"drawing": code_sha256(*DRAWING_CODE), "measuring": code_sha256(*MEASURING_CODE)},
        "libraries": library_versions("numpy", "scipy", "torchmetrics"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def _kept(block: str, picture: Picture) -> PictureNumbers:
    shot = picture.shot
    numbers = {name: None if value != value else value for name, value in picture.numbers.items()}
    return PictureNumbers(
        block=block, method=shot.method, subject=shot.subject, prompt=shot.prompt, index=shot.index, seed=shot.seed,
        failure=picture.measured.failure, numbers=numbers,
    )  # fmt: skip


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    """NaN is no JSON."""
    return {name: None if value != value else value for name, value in row.items()}


def _pictures_csv(rows: Sequence[PictureNumbers]) -> str:
    metrics = list(dict.fromkeys(name for row in rows for name in row.numbers))
    flat = [row.model_dump(exclude={"numbers"}) | row.numbers for row in rows]
    return _csv(flat, [*(name for name in PictureNumbers.model_fields if name != "numbers"), *metrics])


def _csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
