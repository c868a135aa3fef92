"""Portraits that show how far a training run has come."""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from consistentid.errors import ConsistentIDError

if TYPE_CHECKING:
    from PIL import Image

    from consistentid.faces.analysis import FaceAnalysis
    from consistentid.generation.generator import PortraitGenerator
    from consistentid.images import PhotoSource
    from consistentid.training.loop import Validation

logger = logging.getLogger(__name__)

PEOPLE = 3  # on a sheet, four portraits each
_PROMPT = "a portrait photo of a person"


def portraits_of(generator: "PortraitGenerator", people: "Sequence[PhotoSource | FaceAnalysis]") -> "Validation":
    """A sheet of portraits of each person, one below the other, and how like them the portraits are.

    The metrics are the share of portraits with a face, and the cosine between the embeddings of photo and portrait,
    by dlib whatever the adapter was trained with.
    """
    import numpy as np

    from consistentid.faces.detection import DlibDetector
    from consistentid.generation.request import GenerationRequest
    from consistentid.generation.settings import GenerationSettings
    from consistentid.generation.sheet import sheet
    from consistentid.training.loop import Validation

    judge, sheets = DlibDetector("hog"), []  # frontal faces, quickly
    likeness: list[float] = []
    found: list[float] = []
    for photo in people:
        try:
            prepared = generator.prepare(GenerationRequest(photo, _PROMPT, GenerationSettings(num_images=4)))
        except ConsistentIDError as error:
            logger.warning("no validation portraits: %s", error)
            continue
        made, shown = generator.render([prepared])[0], judge.detect(prepared.analysis.photo)
        sheets.append(sheet(prepared.analysis, made))
        for portrait in made:
            faces = judge.detect(np.asarray(portrait.image))
            found.append(float(bool(faces)))
            likeness += [_cosine(a.identity_embedding, b.identity_embedding) for a in shown[:1] for b in faces[:1]]
    metrics = {"portraits/face_found": found, "portraits/identity": likeness}
    return Validation({name: fmean(values) for name, values in metrics.items() if values}, _stacked(sheets))


def first_people(dataset: Path) -> "list[FaceAnalysis]":
    """The first photos of held-out people of a dataset."""
    from consistentid.dataset.holdout import held_out_rows
    from consistentid.dataset.shards import FGIDDataset

    records = FGIDDataset.open(dataset)
    return [records[index].analysis() for index in held_out_rows(records.column("person"))[:PEOPLE]]


def _cosine(a: "object", b: "object") -> float:
    import numpy as np

    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _stacked(sheets: "list[Image.Image]") -> "Image.Image | None":
    from PIL import Image

    if not sheets:
        return None
    whole = Image.new("RGB", (max(each.width for each in sheets), sum(each.height for each in sheets)), "white")
    top = 0
    for each in sheets:
        whole.paste(each, (0, top))
        top += each.height
    return whole
