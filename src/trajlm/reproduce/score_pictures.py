"""A matrix of scores as bars: statistics over datasets, and a panel for each dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import picture, published_scores
from trajlm.reproduce.taking_part import titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDEST = 3
"""Panels of datasets beside each other."""
BAR = 0.8
PALE = 0.35
"""White in a bar's colour, so that seeds and intervals show on it."""


def draw_bars(results: Mapping[str, Any], figure: Figure) -> None:
    """Bars with intervals, seeds as crosses, published scores as lines: from results.json alone."""
    rows = results["rows"]
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    over = [each for each in results["picture"]["aggregates"] if each["statistic"] == "IQM"]
    if not rows:
        figure.text(0.5, 0.5, "no training is there yet", ha="center")
        return
    if over:
        sides = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, WIDEST))
        whole, panels = sides[0]
        axes = whole.subplots()
        for each in over:
            bar = {**each, "mean": each["value"], "seeds": []}
            _draw_bar(axes, bar, place=recipes.index(each["recipe"]))
        _finish(axes, f"IQM of {len(over[0]['datasets'])} datasets", len(recipes))
        axes.set_ylabel("score")
    else:
        panels = figure.subfigures(1, 1)
    columns = min(WIDEST, len(names))
    lines = math.ceil(len(names) / columns)
    grid = panels.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes in grid[::columns]:
        axes.set_ylabel("score")
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid, names, strict=False):
        for row in rows:
            if row["dataset"] == name:
                _draw_bar(axes, row, place=recipes.index(row["recipe"]))
        _draw_published(axes, name, recipes)
        _finish(axes, name, len(recipes))
    _draw_legend(figure, recipes, published=any(map(published_scores.dataset_of, names)))


def _draw_bar(axes: Axes, row: Mapping[str, Any], *, place: int) -> None:
    axes.bar(place, row["mean"], width=BAR, color=_colour(place))
    if row["interval"] is not None:
        axes.plot([place, place], row["interval"], color=picture.INK, linewidth=1.5)
        axes.plot([place] * len(row["seeds"]), row["seeds"], "x", color=picture.INK, markersize=4)
    else:
        axes.text(place, row["mean"], "n=1", ha="center", va="bottom", fontsize=8)


def _colour(place: int) -> Any:
    from matplotlib.colors import to_rgb

    return [
        PALE + (1 - PALE) * part for part in to_rgb(picture.SERIES[place % len(picture.SERIES)])
    ]


def _draw_published(axes: Axes, name: str, recipes: Sequence[str]) -> None:
    dataset = published_scores.dataset_of(name)
    for algorithm, source in published_scores.COLUMNS if dataset else ():
        for place, recipe in enumerate(recipes):
            if recipe.split("/")[0] == algorithm and dataset is not None:
                value = published_scores.score(algorithm, source, dataset)
                ends = (place - BAR / 2, place + BAR / 2)
                axes.plot(ends, (value, value), color=picture.INK, linestyle=(0, (2, 1)))


def _finish(axes: Axes, title: str, count: int) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_xlim(-0.6, count - 0.4)
    axes.grid(visible=False, axis="x")


def _draw_legend(figure: Figure, recipes: Sequence[str], *, published: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Any] = [Patch(color=_colour(place)) for place in range(len(recipes))]
    words = list(titles(recipes).values())
    marks += [
        Line2D([], [], color=picture.INK),
        Line2D([], [], color=picture.INK, marker="x", linestyle="", markersize=4),
    ]
    words += ["95% interval over seeds", "a seed"]
    if published:
        marks.append(Line2D([], [], color=picture.INK, linestyle=(0, (2, 1))))
        words.append("published")
    figure.legend(marks, words, loc="outside lower center", ncols=4)
