"""The paper's ablations at the scale of the embedded model: equal budgets from the same start, several seeds.

Usage: python benchmarks/ablations.py DATASET PHOTOS [--steps 200] [--seeds 0 1 2] [--out runs/ablations]

Every training starts where the paper's does: with the base model and the overall identity of an existing adapter (there
IP-Adapter-FaceID-Plus, here the embedded one), and with a FacialEncoder that knows nothing. They differ in what
VARIATIONS says, and are scored on held-out people by the `ablations` protocol. DATASET is built with
`--captioner measured`. What was done is not done again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from consistentid.evaluation.config import EvaluationConfig
from consistentid.evaluation.intervals import mean_estimate
from consistentid.evaluation.parts import worker_for
from consistentid.evaluation.results import load_pictures, save
from consistentid.evaluation.run import REAL, evaluate
from consistentid.training.adapter.base import EMBEDDED
from consistentid.training.adapter.config import AdapterTrainingConfig
from consistentid.training.adapter.trainer import AdapterTrainer

CONFIG = Path(__file__).parents[1] / "configs" / "embedded-adapter.yaml"
# What a training changes, and the blocks of the protocol that score it.
VARIATIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "both": ({}, ("both", "expression")),
    "without eq. 1": ({"step": {"localisation_weight": 0}}, ("both", "expression")),
    "overall only": ({"step": {"drop_regions": 1}}, ("overall only",)),
    "fine-grained only": ({"step": {"drop_identity": 1}}, ("fine-grained only",)),
    "geometry captions": ({"adapter": {"caption": None}}, ("both", "expression")),
}
POOLED = ("auc dlib", "auc facenet")
METRICS = ("similarity dlib", "similarity facenet", "fgis", "moved as asked")
_INSIDE = "held_out/attention_inside"


def start(folder: Path) -> Path:
    """The overall identity of the embedded adapter, in the layout of IP-Adapter-FaceID-Plus."""
    path = folder / "start.safetensors"
    if not path.is_file():
        weights = load_file(EMBEDDED / "adapter" / "adapter.safetensors")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value for key, value in weights.items() if key.startswith(("image_proj.", "ip_adapter."))}, path
        )
    return path


def train(name: str, dataset: Path, out: Path, *, seed: int, steps: int) -> Path:
    """The adapter of a variation, and what share of the attention lies inside the regions at the end."""
    values = yaml.safe_load(CONFIG.read_text())
    values |= {
        "dataset": str(dataset),
        "out": str(out / f"{name} {seed}"),
        "held_out": 48,
        "start_from": str(start(out)),
    }
    values["precompute"] = {"folder": str(out / "precomputed"), "variants": 1}
    values["loop"] |= {"steps": steps, "seed": seed, "learning_rate": 5e-4, "warmup_steps": 20, "ema_decay": 0.98}
    values["loop"] |= {"validate_every": steps, "checkpoint_every": steps}
    values["step"] |= {"localisation_weight": 0.05, "detail_weight": 3.0, "drop_identity": 0.3}
    for part, changes in VARIATIONS[name][0].items():
        values[part] |= changes
    return AdapterTrainer(AdapterTrainingConfig.model_validate(values)).run()


def attention_inside(folder: Path) -> float:
    """Share of the region words' attention that falls into their own region on held-out photos, at the end."""
    events = EventAccumulator(str(folder / "log"))
    events.Reload()
    return float(events.Scalars(_INSIDE)[-1].value)


def score(adapter: Path, blocks: Sequence[str], photos: Path, out: Path, *, cache: Path) -> None:
    """Evaluate an adapter, once; portraits and measurements of all adapters are kept in one folder."""
    if not (out / "scores.json").is_file():
        config = EvaluationConfig(
            adapter=str(adapter), photos=photos, out=cache, protocol="ablations", blocks=tuple(blocks)
        )
        worker = worker_for(config)
        save(evaluate(config, worker), worker, out)


def pooled(folders: Sequence[Path], metric: str) -> float:
    """A score of all people, which has no mean over them; mean over the seeds of the training."""
    rows = [row for folder in folders for row in json.loads((folder / "scores.json").read_text())]
    return float(
        np.mean(
            [
                row["value"]
                for row in rows
                if row["metric"] == metric
                and row["block"] != REAL
                and row["group"] == "all"
                and row["block"] != "expression"
            ]
        )
    )


def by_person(folders: Sequence[Path], metric: str) -> dict[str, float]:
    """A metric of every person, mean over their portraits and the seeds of the training."""
    values: dict[str, list[float]] = {}
    for folder in folders:
        for row in load_pictures(folder):
            number = row.numbers.get(metric)
            if row.block != REAL and number is not None:
                values.setdefault(row.subject, []).append(number)
    return {person: float(np.mean(each)) for person, each in values.items()}


def main() -> None:
    """Train, score, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variations", nargs="+", default=list(VARIATIONS), choices=list(VARIATIONS))
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.variations:
            adapter = train(name, options.dataset, options.out, seed=seed, steps=options.steps)
            score(
                adapter,
                VARIATIONS[name][1],
                options.photos,
                options.out / f"{name} {seed}" / "scores",
                cache=options.out / "drawn",
            )
    print("| training | attention inside | " + " | ".join((*POOLED, *METRICS)) + " |")
    print("|---" * (len(POOLED) + len(METRICS) + 2) + "|")
    for name in options.variations:
        folders = [options.out / f"{name} {seed}" for seed in options.seeds]
        cells = [f"{100 * np.mean([attention_inside(folder) for folder in folders]):.1f} %"]
        scores = [folder / "scores" for folder in folders]
        cells += [f"{pooled(scores, metric):.3f}" for metric in POOLED]
        for metric in METRICS:
            values = by_person(scores, metric)
            cells.append(_cell(asdict(mean_estimate(values))) if values else "-")
        print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


if __name__ == "__main__":
    main()
