"""The report as one HTML file that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from consistentid.evaluation.report import gallery, plots
from consistentid.evaluation.report.markdown import GROUP_METRICS, summary_lines
from consistentid.evaluation.report.tables import (
    Table,
    formatted,
    group_table,
    headline_tables,
    meaning,
    region_table,
)
from consistentid.evaluation.run import Evaluation
from consistentid.evaluation.scoring import Score


@dataclass(frozen=True)
class Cell:
    """One cell of an HTML table.

    Attributes:
        text: what is read.
        order: what is sorted by.
        shade: 0 to 1, how dark a heat table draws it; None without.
    """

    text: str
    order: float | str
    shade: float | None = None


@dataclass(frozen=True)
class HtmlTable:
    """A sortable table.

    Attributes:
        title: above it.
        columns: name and meaning.
        rows: cells.
        heat: whether cells are shaded.
    """

    title: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    heat: bool = False


def html(evaluation: Evaluation) -> str:
    """The page."""
    from jinja2 import Environment

    text = (files("consistentid.evaluation.report") / "page.html.j2").read_text()
    recogniser = evaluation.recognisers[-1]
    groups = group_table(evaluation.scores, metrics=GROUP_METRICS)
    tables = [_html_table(table) for table in headline_tables(evaluation.scores)]
    tables += [_html_table(region_table(evaluation.scores), heat=True)]
    tables += [_html_table(groups)] if groups.rows else []
    curves = plots.curves(evaluation.scores, recogniser=recogniser)
    first = next(iter(evaluation.portraits), None)
    methods = [
        plots.draw_methods(evaluation.scores, metric=metric, block=first)
        for metric in (*(f"auc {name}" for name in evaluation.recognisers), "fgis")
        if first is not None
    ]
    drawn = [picture for shots in evaluation.portraits.values() for picture in shots]
    own = [picture for picture in dict.fromkeys(drawn) if picture.shot.method == evaluation.main_method]
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(text)
        .render(
            title=evaluation.title,
            summary=[line.replace("**", "").replace("`", "") for line in summary_lines(evaluation)],
            tables=tables,
            methods=methods,
            curves=[plots.draw_curve(curve) for curve in curves],
            recogniser=recogniser,
            worst=gallery.worst(own, evaluation.subjects, recogniser=recogniser),
            galleries={name: gallery.rows(shots, evaluation.subjects) for name, shots in evaluation.portraits.items()},
            every=_every(evaluation.scores),
        )
    )


def _html_table(table: Table, *, heat: bool = False) -> HtmlTable:
    ranges = [_range(scores) for scores in zip(*(row for _, row in table.rows), strict=True)]
    rows = []
    for name, scores in table.rows:
        shades = [
            (score.value - low) / (high - low) if heat and score is not None and high > low else None
            for score, (low, high) in zip(scores, ranges, strict=True)
        ]
        cells = [_cell(score, shade) for score, shade in zip(scores, shades, strict=True)]
        rows.append([Cell(name, name), *cells])
    return HtmlTable(table.title, [("", ""), *((name, _tip(name)) for name in table.columns)], rows, heat)


def _range(scores: Sequence[Score | None]) -> tuple[float, float]:
    values = [score.value for score in scores if score is not None and np.isfinite(score.value)]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _cell(score: Score | None, shade: float | None) -> Cell:
    known = score is not None and np.isfinite(score.value)
    return Cell(formatted(score), score.value if score is not None and known else "", shade if known else None)


def _tip(metric: str) -> str:
    text, better = meaning(metric)
    return f"{text}; {better} is better" if better else text


def _every(scores: Sequence[Score]) -> HtmlTable:
    names = ("block", "method", "group", "metric", "value", "low", "high", "subjects", "pictures", "missing")
    rows = [[_plain(getattr(score, name)) for name in names] for score in scores]
    return HtmlTable("every score", [(name, "") for name in names], rows)


def _plain(value: str | float) -> Cell:
    if isinstance(value, float):
        return Cell("–" if np.isnan(value) else f"{value:.4f}", "" if np.isnan(value) else value)
    return Cell(str(value), value)
