"""Scores of the embedded model on held-out people: identity, adherence to the prompt, variety.

Usage: python benchmarks/embedded_scores.py PHOTOS [--model FOLDER] [--out out/scores.json] [--parts identity,...]

PHOTOS is a folder with `portraits.jsonl` (file, person, gender or gender_estimated); people with two photos whose
CRC-32 is divisible by 3 are held out (consistentid.dataset.holdout). One photo is the reference, the other one is in
the gallery. Everything runs through PortraitGenerator, as a user would call it.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from consistentid.dataset.holdout import is_held_out
from consistentid.evaluation.verification import bootstrap_interval, verification_scores
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.attributes import FaceAttributes, measure_attributes
from consistentid.faces.detection import DlibDetector
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

PLAIN = "a portrait photo of a person"
CONDITIONS = {
    "both": {},
    "identity tokens only": {"regions": ()},
    "region tokens only": {"identity_scale": 0.0},
    "base model without identity": {"identity_scale": 0.0, "regions": ()},
}
# Asked against its opposite: the measured number must be larger for the first prompt.
OPPOSITES = {
    "smiling / serious": ("a portrait photo of a smiling person", "a portrait photo of a serious person"),
    "blond / black hair": (f"{PLAIN} with blond hair", f"{PLAIN} with black hair"),
    "red / black hair": (f"{PLAIN} with red hair", f"{PLAIN} with black hair"),
    "white / brown hair": (f"{PLAIN} with white hair", f"{PLAIN} with brown hair"),
    "white / black background": (f"{PLAIN}, white background", f"{PLAIN}, black background"),
    "red / green background": (f"{PLAIN}, red background", f"{PLAIN}, green background"),
    "yellow / blue background": (f"{PLAIN}, yellow background", f"{PLAIN}, blue background"),
    "woman / man": ("a portrait photo of a woman", "a portrait photo of a man"),
}


@dataclass(frozen=True)
class Person:
    """A held-out person: the analysed reference, and the embedding of another photo."""

    name: str
    reference: FaceAnalysis
    other: np.ndarray


class Judge:
    """Measures portraits with the recogniser, the parser and colours."""

    def __init__(self, generator: PortraitGenerator, gender: tuple[np.ndarray, float]) -> None:
        assert generator.analyzer is not None
        self.parser = generator.analyzer.parser
        self.detector = DlibDetector()
        self.gender_direction, self.gender_offset = gender

    def embedding(self, picture: Image.Image) -> np.ndarray | None:
        """Identity embedding, None when no face is found."""
        faces = self.detector.detect(np.asarray(picture))
        return faces[0].identity_embedding if faces else None

    def attributes(self, picture: Image.Image) -> FaceAttributes | None:
        """Measured attributes of a portrait, enlarged to the size of photos."""
        pixels = np.asarray(picture.resize((256, 256), Image.Resampling.BICUBIC))
        faces = self.detector.detect(pixels)
        return measure_attributes(pixels, self.parser.parse(pixels, faces[0])) if faces else None

    def measure(self, what: str, picture: Image.Image) -> float | None:
        """The number behind a pair of `OPPOSITES`."""
        if what == "woman / man":
            embedding = self.embedding(picture)
            return None if embedding is None else float(embedding @ self.gender_direction + self.gender_offset)
        found = self.attributes(picture)
        if found is None:
            return None
        kind = what.rsplit(" ", 1)[-1]
        if kind == "hair":
            lab = found.hair_lab
            return float(lab[1] + lab[2]) if what.startswith("red") else float(lab[0])
        if kind == "background":
            lab = found.background_lab
            return float({"white": lab[0], "red": lab[1], "yellow": lab[2]}[what.split(" ")[0]])
        return found.smile


def people_of(folder: Path, generator: PortraitGenerator) -> list[Person]:
    """Held-out people with two photos."""
    assert generator.analyzer is not None
    files = defaultdict(list)
    for line in (folder / "portraits.jsonl").read_text().splitlines():
        record = json.loads(line)
        files[record["person"]].append(folder / record["file"])
    detector, people = DlibDetector(), []
    for name, photos in files.items():
        if len(photos) > 1 and is_held_out(name, len(photos)):
            other = detector.detect(np.asarray(Image.open(photos[1]).convert("RGB")))
            people.append(Person(name, generator.analyzer.analyze(photos[0]), other[0].identity_embedding))
    return people


def gender_classifier(folder: Path, *, count: int = 400) -> tuple[np.ndarray, float]:
    """Least-squares direction from man to woman in embedding space, fitted on people that are not held out."""
    records = [json.loads(line) for line in (folder / "portraits.jsonl").read_text().splitlines()]
    detector, rows, labels = DlibDetector(), [], []
    for record in records[:: max(1, len(records) // count)]:
        gender = record.get("gender", record.get("gender_estimated"))
        if gender and not is_held_out(record["person"], 1) and not is_held_out(record["person"], 2):
            faces = detector.detect(np.asarray(Image.open(folder / record["file"]).convert("RGB")))
            if faces:
                rows.append(faces[0].identity_embedding)
                labels.append(1.0 if gender == "woman" else -1.0)
    design = np.c_[np.array(rows), np.ones(len(rows))]
    solution = np.linalg.solve(design.T @ design + 0.05 * np.eye(design.shape[1]), design.T @ np.array(labels))
    return solution[:-1], float(solution[-1])


def portraits(
    generator: PortraitGenerator, people: Sequence[Person], prompt: str, **settings: object
) -> list[Image.Image]:
    """One portrait of each person."""
    requests = [GenerationRequest(person.reference, prompt, GenerationSettings.of(**settings)) for person in people]
    return [row[0].image for row in generator.generate_batch(requests, batch_size=8)]


def identity(generator: PortraitGenerator, judge: Judge, people: Sequence[Person]) -> dict[str, dict[str, object]]:
    """Verification scores for every condition, and with the real reference photo instead of a portrait."""
    gallery, index = np.stack([person.other for person in people]), np.arange(len(people))
    rows = {}
    for name, settings in CONDITIONS.items():
        pictures = portraits(generator, people, PLAIN, seed=0, **settings)
        rows[name] = _scored([judge.embedding(picture) for picture in pictures], index, gallery)
        print(name, rows[name], flush=True)
    rows["the reference photo itself"] = _scored([p.reference.identity_embedding for p in people], index, gallery)
    return rows


def _scored(embeddings: list[np.ndarray | None], index: np.ndarray, gallery: np.ndarray) -> dict[str, object]:
    scores = asdict(verification_scores(embeddings, index, gallery))
    hits = np.array([
        0.0 if e is None else float(np.linalg.norm(gallery - e, axis=1).argmin() == i)
        for i, e in zip(index, embeddings, strict=True)
    ])  # fmt: skip
    return scores | {"rank1_interval": bootstrap_interval(hits)}


def adherence(generator: PortraitGenerator, judge: Judge, people: Sequence[Person]) -> dict[str, dict[str, float]]:
    """How often the measured attribute moves the asked way, and the identity that remains."""
    gallery, index = np.stack([person.other for person in people]), np.arange(len(people))
    rows = {}
    for what, prompts in OPPOSITES.items():
        pictures = [portraits(generator, people, prompt, seed=0) for prompt in prompts]
        numbers = [[judge.measure(what, picture) for picture in row] for row in pictures]
        moved = [a is not None and b is not None and a > b for a, b in zip(*numbers, strict=True)]
        scores = [verification_scores([judge.embedding(p) for p in row], index, gallery) for row in pictures]
        rows[what] = {"moved": float(np.mean(moved)), "auc": min(s.auc for s in scores), "people": len(people)}
        print(what, rows[what], flush=True)
    return rows


def variety(
    generator: PortraitGenerator, judge: Judge, people: Sequence[Person], *, seeds: int = 4
) -> dict[str, float]:
    """Spread over seeds, and what the portraits copy from the reference."""
    spread, copied = defaultdict(list), defaultdict(list)
    runs = [portraits(generator, people, PLAIN, seed=seed) for seed in range(seeds)]
    for row, person in enumerate(people):
        found = [judge.attributes(run[row]) for run in runs]
        kept = [attributes for attributes in found if attributes is not None]
        if len(kept) < 2:
            continue
        spread["background_lab"].append(np.nanmean(np.nanstd([a.background_lab for a in kept], axis=0)))
        spread["smile"].append(np.std([a.smile for a in kept]))
        spread["mouth_open"].append(np.std([a.mouth_open for a in kept]))
        reference = measure_attributes(person.reference.photo, person.reference.label_map)
        copied["background lightness"].append(
            (reference.background_lab[0], np.nanmean([a.background_lab[0] for a in kept]))
        )
        copied["background yellow-blue"].append(
            (reference.background_lab[2], np.nanmean([a.background_lab[2] for a in kept]))
        )
        copied["mouth opening"].append((reference.mouth_open, np.mean([a.mouth_open for a in kept])))
    result = {f"spread of {name} over seeds": float(np.nanmean(values)) for name, values in spread.items()}
    for name, pairs in copied.items():
        clean = np.array([pair for pair in pairs if np.isfinite(pair).all()])
        result[f"correlation with the reference: {name}"] = float(np.corrcoef(clean.T)[0, 1])
    return result


def main() -> None:
    """Run the chosen parts and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, default=Path("out/scores.json"))
    parser.add_argument("--parts", default="identity,adherence,variety")
    parser.add_argument("--people", type=int, help="only the first so many, for adherence and variety", default=40)
    arguments = parser.parse_args()
    generator = PortraitGenerator.from_pretrained(arguments.model)
    people = people_of(arguments.photos, generator)
    judge = Judge(
        generator, gender_classifier(arguments.photos) if "adherence" in arguments.parts else (np.zeros(128), 0)
    )
    some = people[:: max(1, len(people) // arguments.people)][: arguments.people]
    parts = {
        "identity": lambda: identity(generator, judge, people),
        "adherence": lambda: adherence(generator, judge, some),
        "variety": lambda: variety(generator, judge, some),
    }
    report = {name: parts[name]() for name in arguments.parts.split(",")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2, default=float) + "\n")
    print(json.dumps(report, indent=2, default=float))


if __name__ == "__main__":
    main()
