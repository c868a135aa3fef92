"""Who is in whose place? Pairs of held-out people in one picture.

Usage: python benchmarks/several_people.py PHOTOS [--pairs 40] [--sizes 240x128 256x128 ...] [--out out/pairs.json]

PHOTOS and people as in control.py. Likeness is the cosine of dlib's embeddings of the photo and of what is found in a
place; the leak is how much more the face in a place is like the other person than that of the same person's portrait
alone, of the same seed. Portraits of a blend of both, one in each place, show what a leak looks like. The interval of a
mean is a bootstrap over pairs. With 40 pairs and one size about 6 minutes on one core.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from held_out import PROMPT, Bench, Person, photos_folder

from consistentid.evaluation.embedders import DlibFeatures
from consistentid.evaluation.intervals import mean_estimate
from consistentid.evaluation.leak import identity_matrix, leak
from consistentid.evaluation.measured import Measured
from consistentid.evaluation.recognisers import DlibRecogniser
from consistentid.generation.donors import Donors
from consistentid.generation.places import as_box
from consistentid.generation.portrait import Portrait
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

Pair = tuple[Person, Person]
SHOWN = 8  # pictures that are kept


def together(bench: Bench, pairs: Sequence[Pair], size: tuple[int, int] | None) -> list[Portrait]:
    """A picture of every pair, laid out automatically."""
    requests = [
        GenerationRequest(
            a.face, PROMPT, GenerationSettings.of(seed=a.seed, size=size), donors=Donors(beside=(b.face,))
        )
        for a, b in pairs
    ]
    return [row[0] for row in bench.generator.generate_batch(requests)]


def in_places(bench: Bench, portrait: Portrait) -> list[Measured]:
    """What is measured in every place of a picture."""
    width, height = portrait.image.size
    found = []
    for place in portrait.settings.places:
        left, top, right, bottom = as_box(place) or (0, 0, 1, 1)
        box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
        found.append(bench.judge.measure(portrait.image.crop(box)))
    return found


def embedding(measured: Measured) -> np.ndarray | None:
    """Who dlib says it is; None without a face."""
    return measured.identity.get(DlibRecogniser.name)


def scores(pairs: Sequence[Pair], faces: Sequence[list[Measured]], alone: dict[str, Measured]) -> dict[str, Any]:
    """Means over pairs."""
    values: dict[str, dict[str, float]] = {name: {} for name in ("own", "other", "leak", "alone", "told apart")}
    for pair, places in zip(pairs, faces, strict=True):
        people, found = [embedding(one.photo) for one in pair], [embedding(one) for one in places]
        single = [embedding(alone[one.name]) for one in pair]
        matrix, without = identity_matrix(people, found), identity_matrix(people, single)
        numbers = {
            "own": matrix.trace() / 2,
            "other": (matrix.sum() - matrix.trace()) / 2,
            "leak": np.mean([leak(found[k], [people[1 - k]], base=single[k]) for k in (0, 1)]),
            "alone": without.trace() / 2,
            "told apart": float(matrix.trace() * 2 - matrix.sum() > 1e-6),
        }
        for name, value in numbers.items():
            if np.isfinite(value):
                values[name]["+".join(one.name for one in pair)] = float(value)
    missing = sum(embedding(one) is None for places in faces for one in places)
    return {**{name: asdict(mean_estimate(each)) for name, each in values.items()}, "places without a face": missing}


def size_of(text: str) -> tuple[int, int]:
    """`240x128` as width and height."""
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    """Draw the pairs in every size and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=photos_folder)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=size_of, nargs="*", default=[None])
    parser.add_argument("--out", type=Path, default=Path("out/pairs.json"))
    arguments = parser.parse_args()
    bench = Bench(arguments.model, embedder=DlibFeatures())
    people = bench.people(arguments.photos, arguments.pairs, seeds=[0])
    people = [replace(one, seed=arguments.seed) for one in people]  # together from the same noise as alone
    pairs = list(zip(people, [*people[1:], people[0]], strict=True))  # everybody is in two pairs, once on each side
    alone = {person.name: found for person, found in zip(people, bench.portraits(people), strict=True)}
    blends = bench.portraits(people, [Donors(blend=b.face) for _, b in pairs])
    report = {"a blend in both places": scores(pairs, [[one, one] for one in blends], alone)}
    print(report, flush=True)
    for size in arguments.sizes:
        made = together(bench, pairs, size)
        name = "x".join(map(str, made[0].image.size))
        report[name] = scores(pairs, [in_places(bench, one) for one in made], alone)
        print(name, report[name], flush=True)
        for pair, portrait in zip(pairs[:SHOWN], made, strict=False):
            portrait.save(arguments.out.with_suffix("") / f"{name} {'+'.join(one.name for one in pair)}.png")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
