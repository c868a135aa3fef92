"""Does every control do what it says? Weights, mixing, morphs, several photos; how near does a decoded photo come?

Usage: python benchmarks/control.py PHOTOS [--people 40] [--seeds 1] [--first-seed 0] [--regions dlib] [--single]
    [--parts weights,...] [--out FILE]

PHOTOS holds `portraits.jsonl`. Regions are compared by FGIS (consistentid.evaluation.fgis), as it is and centred,
people by dlib's embedding (cosine); the interval of a mean is a bootstrap over people, each the mean of all seeds, of
which everybody has their own (held_out.Bench.people). FGIS sees sharpness and shade as well as persons; centred, both
sides are less the mean over all people of the same kind of picture, which leaves the person's own. In squares, regions
are compared with what is around them (fgis.region_squares). Regions of portraits are seen in four copies each
(held_out.Bench.measure).
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from held_out import PROMPT, Bench, Person, photos_folder
from PIL import Image, ImageEnhance, ImageFilter
from similarity import KINDS, PARTS, estimated, likeness, named, of_part, others, regional, slope

from consistentid.evaluation.embedders import DlibFeatures, ImageEmbedder
from consistentid.evaluation.facenet import FaceNetFeatures
from consistentid.evaluation.intervals import mean_estimate, paired_difference
from consistentid.evaluation.measured import Measured
from consistentid.generation.donors import Donors
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

WEIGHTS = (0.0, 1.0, 1.5)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
EMBEDDERS: dict[str, type[ImageEmbedder]] = {"dlib": DlibFeatures, "facenet": FaceNetFeatures}


def weights(bench: Bench, people: Sequence[Person]) -> dict[str, Any]:
    """Similarity of a part, and of the other regions, by the part's weight."""
    report = {}
    usual = bench.portraits(people)
    for part in PARTS:
        some, plain = showing(part, people, usual)
        made = [plain if w == 1 else bench.portraits(some, weights={part: w}) for w in WEIGHTS]
        report[part] = {kind: weighted(part, some, made, view) for kind, view in KINDS.items()}
        print(part, report[part], flush=True)
    return report


def showing(part: str, people: Sequence[Person], usual: Sequence[Measured]) -> tuple[list[Person], list[Measured]]:
    """Those whose photo shows a part, and their usual portraits."""
    pairs = [pair for pair in zip(people, usual, strict=True) if part in ("identity", *pair[0].shown)]
    return [person for person, _ in pairs], [portrait for _, portrait in pairs]


def weighted(
    part: str,
    people: Sequence[Person],
    made: Sequence[Sequence[Measured]],
    view: Callable[[Sequence[Measured]], Sequence[Measured]],
) -> dict[str, Any]:
    """Similarities of portraits by weight, and their slopes."""
    photos = view([person.photo for person in people])
    rows = [view(row) for row in made]
    own, rest = (
        np.array([[measure(*pair) for pair in zip(row, photos, strict=True)] for row in rows]).T
        for measure in (of_part(part), partial(regional, regions=others(part)))
    )
    seen = own[np.isfinite(own).all(1)]  # the same portraits for every weight
    return {
        "similarity": dict(zip(map(str, WEIGHTS), seen.mean(0).tolist(), strict=True)),
        "slope": estimated(people, slope(WEIGHTS, own)),
        "slope of the other regions": estimated(people, slope(WEIGHTS, rest)),
    }


def mixing(bench: Bench, people: Sequence[Person]) -> dict[str, Any]:
    """What a part from somebody else's photo changes: similarity of the part to its donor, of the rest to its own."""
    usual = bench.portraits(people)
    report = {}
    for part in PARTS:
        some, plain = showing(part, people, usual)
        made = bench.portraits(some, [Donors({part: donor.face}) for donor in (*some[1:], some[0])])
        report[part] = {kind: mixed(part, some, plain, made, view) for kind, view in KINDS.items()}
        print(part, report[part], flush=True)
    return report


def mixed(
    part: str,
    people: Sequence[Person],
    usual: Sequence[Measured],
    made: Sequence[Measured],
    view: Callable[[Sequence[Measured]], Sequence[Measured]],
) -> dict[str, Any]:
    """What a part of the next person changes."""
    own, rest = of_part(part), partial(regional, regions=others(part))
    photos = view([person.photo for person in people])
    rows = list(zip(photos, [*photos[1:], photos[0]], view(usual), view(made), strict=True))
    return {
        "part: gain to its donor": estimated(people, [own(m, d) - own(u, d) for _, d, u, m in rows]),
        "part: loss to its own": estimated(people, [own(u, p) - own(m, p) for p, _, u, m in rows]),
        "rest: loss to its own": estimated(people, [rest(u, p) - rest(m, p) for p, _, u, m in rows]),
    }


def morph(bench: Bench, people: Sequence[Person]) -> dict[str, Any]:
    """Likeness to both people along a morph."""
    seconds = [*people[1:], people[0]]
    blends = [Donors(blend=second.face) for second in seconds]
    made = [bench.portraits(people, blends, blend=share) for share in SHARES]
    report = {}
    for name, towards in (("first", people), ("second", seconds)):
        rows = np.array([[likeness(one, p.photo) for one, p in zip(row, towards, strict=True)] for row in made]).T
        report[name] = {
            "likeness": {str(t): float(np.nanmean(column)) for t, column in zip(SHARES, rows.T, strict=True)},
            "slope": estimated(people, slope(SHARES, rows)),
        }
    print(report, flush=True)
    return report


def several(bench: Bench, people: Sequence[Person]) -> dict[str, Any]:
    """Likeness to another real photo, from one or three bad photos: nobody in this set has more than two photos."""
    spoilt_ones = {p.name: [bench.analyze(spoilt(p.face.image, k)) for k in range(3)] for p in once(people)}
    bad = [spoilt_ones[person.name] for person in people]
    first, more = [one[0] for one in bad], [Donors(same=(one[1], one[2])) for one in bad]
    made = {"one bad photo": bench.portraits(people, faces=first)}
    for how in ("average", "concatenate", "best"):
        made[f"three, {how}"] = bench.portraits(people, more, first, combine=how)
    made["the good photo"] = bench.portraits(people)
    likenesses = {
        name: named(people, [likeness(one, p.other) for one, p in zip(row, people, strict=True)])
        for name, row in made.items()
    }
    report = {
        name: {
            "likeness": asdict(mean_estimate(values)),
            "more than one": asdict(paired_difference(likenesses["one bad photo"], values)),
        }
        for name, values in likenesses.items()
    }
    print(report, flush=True)
    return report


def once(people: Sequence[Person]) -> list[Person]:
    """Everybody with one seed only."""
    return list({person.name: person for person in people}.values())


def spoilt(photo: Image.Image, kind: int) -> Image.Image:
    """A worse photo of the same moment: blurred, small and noisy, or dark and turned."""
    side = min(photo.size)
    if kind == 0:
        return photo.filter(ImageFilter.GaussianBlur(side / 100))
    if kind == 1:
        small = photo.resize((photo.width * 100 // side, photo.height * 100 // side)).resize(photo.size)
        noise = np.random.default_rng(0).normal(0, 14, (photo.height, photo.width, 3))
        return Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8))
    return ImageEnhance.Brightness(photo.rotate(12, Image.Resampling.BICUBIC)).enhance(0.5)


def ceiling(bench: Bench, people: Sequence[Person]) -> dict[str, Any]:
    """How near the photos themselves come to themselves at the model's size, and after its autoencoder."""
    some = once(people)
    cut = [bench.framed(person.face) for person in some]
    photos = [person.photo for person in some]
    rows = {
        "photo at the model's size": [bench.measure(picture) for picture in cut],
        "encoded and decoded": [bench.measure(bench.autoencoded(picture)) for picture in cut],
        "portraits": bench.portraits(some),
    }
    report = {
        name: {
            kind: {
                part: estimated(some, [of_part(part)(*pair) for pair in zip(view(row), view(photos), strict=True)])
                for part in PARTS
            }
            for kind, view in KINDS.items()
        }
        for name, row in rows.items()
    }
    print(report, flush=True)
    return report


def cost(bench: Bench, people: Sequence[Person], *, rounds: int = 5) -> dict[str, float]:
    """CPU time of a batch with knobs, or with a mixture, over that of the plain call; medians of alternating runs."""
    some = (list(people) * 4)[:4]
    asked = {
        "plain": (Donors(), {}),
        "knobs": (Donors(), {"weights": {"eyes": 0.5, "identity": 1.2}, "starts": {"nose": 0.5}}),
        "eyes and a blend": (Donors({"eyes": people[-1].face}, people[0].face), {}),
        "eyes, mouth and identity": (
            Donors({"eyes": people[-1].face, "mouth": people[-2].face, "identity": people[-3].face}), {}
        ),
    }  # fmt: skip
    times = defaultdict(list)
    for _ in range(rounds):
        for name, (donors, settings) in asked.items():
            requests = [
                GenerationRequest(p.face, PROMPT, GenerationSettings.of(seed=k, **settings), donors=donors)
                for k, p in enumerate(some)
            ]
            start = time.process_time()
            bench.generator.generate_batch(requests)
            times[name].append(time.process_time() - start)
    medians = {name: float(np.median(values[1:])) for name, values in times.items()}
    report = {name: value / medians["plain"] for name, value in medians.items()}
    print(report, flush=True)
    return report


CHECKS = {"weights": weights, "mixing": mixing, "morph": morph, "several": several, "ceiling": ceiling, "cost": cost}


def main() -> None:
    """Run the chosen parts and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=photos_folder)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1, help="portraits of each person, by noise of their own")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--regions", choices=EMBEDDERS, default="dlib")
    parser.add_argument("--parts", default=",".join(CHECKS))
    parser.add_argument("--single", action="store_true", help="people with one photo instead of two")
    parser.add_argument("--out", type=Path, default=Path("out/control.json"))
    arguments = parser.parse_args()
    if unknown := set(arguments.parts.split(",")) - CHECKS.keys():
        parser.error(f"--parts knows {', '.join(CHECKS)}, not {', '.join(sorted(unknown))}")
    if arguments.single and "several" in arguments.parts.split(","):
        parser.error("--single: people with one photo have no other to compare with; leave several out of --parts")
    if arguments.seeds < 1 or arguments.first_seed < 0:
        parser.error("--seeds is at least 1, --first-seed at least 0")
    bench = Bench(arguments.model, embedder=EMBEDDERS[arguments.regions]())
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    people = bench.people(arguments.photos, arguments.people, seeds=seeds, single=arguments.single)
    report = {name: CHECKS[name](bench, people) for name in arguments.parts.split(",")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
