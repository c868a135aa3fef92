"""The plots of a report, as SVG text."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np

from consistentid.evaluation.report.tables import ALL
from consistentid.evaluation.scoring import Score

PROMPT_METRICS = ("moved as asked", "clip text", "named as asked")
_INK, _ACCENT = "#222222", "#2f6f9f"


@dataclass(frozen=True)
class Curve:
    """Identity against prompt along one setting.

    Attributes:
        setting: what changes along it.
        labels: its values; `full` is the model's own.
        prompt: score of each point.
        identity: likewise.
    """

    setting: str
    labels: Sequence[str]
    prompt: Sequence[Score]
    identity: Sequence[Score]


def curves(scores: Sequence[Score], *, recogniser: str) -> list[Curve]:
    """A curve for every setting that was swept."""
    whole = [score for score in scores if score.group == ALL]
    found = []
    for setting in dict.fromkeys(score.method.partition("=")[0] for score in whole if "=" in score.method):
        block = next(score.block for score in whole if score.method.startswith(f"{setting}="))
        own = {(score.method, score.metric): score for score in whole if score.block == block}
        metric = next((name for name in PROMPT_METRICS if ("full", name) in own or _swept(own, setting, name)), None)
        methods = [method for method in dict.fromkeys(m for m, _ in own) if method.startswith(f"{setting}=")]
        methods = sorted(methods, key=lambda method: float(method.partition("=")[2]))
        pairs = [(m, own.get((m, str(metric))), own.get((m, f"auc {recogniser}"))) for m in (*methods, "full")]
        known = [(method, prompt, identity) for method, prompt, identity in pairs if prompt and identity]
        if len(known) > 1:
            names, prompts, identities = zip(*known, strict=True)
            found.append(Curve(setting, [name.partition("=")[2] or "default" for name in names], prompts, identities))
    return found


def _swept(own: dict[tuple[str, str], Score], setting: str, metric: str) -> bool:
    return any(method.startswith(f"{setting}=") and name == metric for method, name in own)


def draw_curve(curve: Curve) -> str:
    """A trade-off: up is more like the person, right is closer to the prompt; bars are 95 % intervals by people."""
    figure, axes = _axes(5.2, 4)
    known = [k for k, label in enumerate(curve.labels) if label != "default"]
    x, y = (np.array([score.value for score in scores]) for scores in (curve.prompt, curve.identity))
    axes.plot(x[known], y[known], color=_ACCENT, linewidth=1, zorder=1)
    for k, label in enumerate(curve.labels):
        colour = _ACCENT if k in known else "#c0392b"
        axes.errorbar(
            x[k], y[k], xerr=_bars(curve.prompt[k]), yerr=_bars(curve.identity[k]), fmt="o", color=colour,
            ecolor="#c9d3da", elinewidth=1, zorder=2,
        )  # fmt: skip
        axes.annotate(label, (x[k], y[k]), xytext=(5, 5), textcoords="offset points", fontsize=9, color=_INK)
    axes.set_xlabel(f"prompt: {curve.prompt[0].metric}")
    axes.set_ylabel(f"identity: {curve.identity[0].metric}")
    axes.set_title(f"{curve.setting.replace('_', ' ')}, {curve.prompt[0].subjects} people", fontsize=10)
    return _svg(figure)


def draw_methods(scores: Sequence[Score], *, metric: str, block: str) -> str:
    """One metric of every method of a block, with intervals."""
    chosen = [s for s in scores if s.block == block and s.metric == metric and s.group == ALL and np.isfinite(s.value)]
    figure, axes = _axes(5.2, 0.6 + 0.4 * len(chosen))
    for row, score in enumerate(reversed(chosen)):
        axes.errorbar(score.value, row, xerr=_bars(score), fmt="o", color=_ACCENT, ecolor="#9fb6c6", elinewidth=2)
    axes.set_yticks(range(len(chosen)), [score.method for score in reversed(chosen)])
    axes.set_ylim(-0.6, len(chosen) - 0.4)
    axes.set_xlabel(metric)
    return _svg(figure)


def _bars(score: Score) -> np.ndarray | None:
    if not np.isfinite(score.low):
        return None
    return np.maximum(0, np.array([[score.value - score.low], [score.high - score.value]]))


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    text = StringIO()
    with mpl.rc_context({"svg.hashsalt": "consistentid", "svg.fonttype": "none"}):  # the same file for the same numbers
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
