"""Does eq. 1 move attention into the regions? Short trainings of the embedded adapter from the same start.

Usage: python benchmarks/localisation.py DATASET [--steps 240] [--weights 0 0.01 0.1] [--plot FILE]

They differ in the weight of eq. 1 only; everything else, the start included, is that of configs/embedded-adapter.yaml.
Measured on held-out people, with the same noise and timesteps every time: the share of a region word's attention that
falls into its own region, mean over heads, regions and the layers with maps of 8 x 8.
"""

import argparse
import json
from pathlib import Path

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from consistentid.training.adapter.config import AdapterTrainingConfig
from consistentid.training.adapter.trainer import AdapterTrainer

CONFIG = Path(__file__).parents[1] / "configs" / "embedded-adapter.yaml"
_TAG = "held_out/attention_inside"


def curve(dataset: Path, folder: Path, *, weight: float, steps: int) -> list[tuple[int, float]]:
    """Step and measured share, of a training with a weight of eq. 1."""
    values = yaml.safe_load(CONFIG.read_text())
    values |= {"dataset": str(dataset), "out": str(folder / f"weight-{weight}"), "held_out": 48}
    values["precompute"] = {"folder": str(folder / "precomputed"), "variants": 1}
    values["loop"] |= {"steps": steps, "validate_every": steps // 8, "checkpoint_every": steps, "warmup_steps": 10}
    values["loop"] |= {"ema_decay": 0, "schedule": "constant"}
    values["step"] |= {"localisation_weight": weight}
    AdapterTrainer(AdapterTrainingConfig.model_validate(values)).run()
    events = EventAccumulator(str(folder / f"weight-{weight}" / "log"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(_TAG)]


def draw(curves: dict[float, list[tuple[int, float]]], path: Path) -> None:
    """The curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for weight, points in curves.items():
        steps, shares = zip(*points, strict=True)
        axes.plot(steps, [100 * share for share in shares], marker="o", label=f"weight of eq. 1: {weight:g}")
    axes.set(xlabel="training step", ylabel="attention inside its own region, %")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Train with each weight, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.01, 0.1])
    parser.add_argument("--out", type=Path, default=Path("runs/localisation"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/localisation.png"))
    options = parser.parse_args()
    curves = {
        weight: curve(options.dataset, options.out, weight=weight, steps=options.steps) for weight in options.weights
    }
    draw(curves, options.plot)
    print(json.dumps(curves))


if __name__ == "__main__":
    main()
