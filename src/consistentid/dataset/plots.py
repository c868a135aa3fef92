"""Plots of a dataset's statistics: the same numbers give the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from consistentid.dataset.files import appearing
from consistentid.dataset.statistics import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = "plots"
_COLOUR = "#3a6ea5"
_WIDTH, _ROW = 6.4, 0.32  # inches; of a figure, and of one bar
_MOST_BARS = 12  # the rest is summed up
_LONGEST = 36  # characters of a bar's name
_BINS = 30


def draw_plots(folder: Path, statistics: Statistics, *, face_px: Sequence[float] | np.ndarray) -> dict[str, str]:
    """Draw what is known of a dataset: regions, face sizes, photos per person, licences; genders and ages if stated.

    Args:
        folder: of the dataset; the plots go to its folder `plots`.
        statistics: of the dataset.
        face_px: width of every face box, px.

    Returns:
        Title of each plot -> its path inside the folder.
    """
    photos = statistics.photos
    bars: dict[str, tuple[str, Mapping[str, float], str]] = {
        "Regions": (
            "regions",
            {name: 100 * count / photos for name, count in statistics.regions.items()},
            "% of the photos show the region",
        ),
        "Photos per person": ("photos_per_person", _people(statistics), "people"),
        "Licences": ("licences", _first(statistics.licences), "photos"),
    }
    if statistics.genders:
        bars["Genders, where stated"] = ("genders", statistics.genders, "photos")
    if statistics.decades:
        ages = {f"{decade}–{decade + 9}": count for decade, count in statistics.decades.items()}
        bars["Ages, where stated"] = ("ages", ages, "photos")
    for title, (name, values, label) in bars.items():
        _save_bars(folder / FOLDER / f"{name}.png", title, values, label)
    _save_histogram(folder / FOLDER / "face_size.png", "Face sizes", face_px, "width of the face box, px")
    drawn = {title: f"{FOLDER}/{name}.png" for title, (name, *_) in bars.items()}
    return {"Face sizes": f"{FOLDER}/face_size.png"} | drawn


def _people(statistics: Statistics) -> dict[str, float]:
    """People with 1, 2, … photos; those with many together."""
    shown: dict[str, float] = {}
    for photos, people in statistics.people_by_photos.items():
        name = "1 photo" if photos == 1 else f"{photos} photos" if photos < _MOST_BARS else f"{_MOST_BARS} or more"
        shown[name] = shown.get(name, 0) + people
    return shown


def _first(counts: Mapping[str, int]) -> dict[str, float]:
    """The most frequent values; the others together."""
    names = list(counts)
    shown: dict[str, float] = {name: counts[name] for name in names[:_MOST_BARS]}
    if names[_MOST_BARS:]:
        shown[f"{len(names) - _MOST_BARS} others"] = sum(counts[name] for name in names[_MOST_BARS:])
    return shown


def _save_bars(path: Path, title: str, values: Mapping[str, float], label: str) -> None:
    def draw(axes: "Axes") -> None:
        names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in values]
        places = range(len(names))
        axes.bar_label(axes.barh(places, list(values.values()), color=_COLOUR), fmt=_label, padding=3)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter("{x:,g}")

    _save(path, draw, title=title, label=label, height=1.1 + _ROW * len(values))


def _label(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.1f}"


def _save_histogram(path: Path, title: str, values: Sequence[float] | np.ndarray, label: str) -> None:
    def draw(axes: "Axes") -> None:
        axes.hist(np.asarray(values), bins=_BINS, color=_COLOUR)
        axes.set_ylabel("photos")
        axes.locator_params(axis="y", integer=True)
        axes.yaxis.set_major_formatter("{x:,g}")

    _save(path, draw, title=title, label=label, height=3.2)


def _save(path: Path, draw: "Callable[[Axes], None]", *, title: str, label: str, height: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context("default"):  # not what the user's matplotlibrc says
        figure = Figure(figsize=(_WIDTH, height), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        with appearing(path) as temporary:
            FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})  # without matplotlib's version
