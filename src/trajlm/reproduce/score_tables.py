"""Scores of algorithms under conditions: one table, and one panel, for each thing that was changed.

A row has `dataset`, `table`, `condition`, `recipe`, `seeds` (a score each), their `mean` and an
`interval`, None for one seed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import picture
from trajlm.reproduce.base import Table
from trajlm.reproduce.taking_part import titles as recipe_titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
UNCHANGED = ("as it is", "all", "dense")
TITLE_WIDTH = 26


def score_tables(rows: Rows, *, titles: Mapping[str, str], note: str) -> tuple[Table, ...]:
    """A table for each dataset and each of `titles` that has rows: a line an algorithm."""
    found, called = [], recipe_titles(_distinct(rows, "recipe"))
    for name in _distinct(rows, "dataset"):
        for table, title in titles.items():
            inside = [r for r in rows if r["dataset"] == name and r["table"] == table]
            if not inside:
                continue
            conditions = ordered(_distinct(inside, "condition"))
            cells = {(r["recipe"], r["condition"]): picture.mean_and_interval(r) for r in inside}
            lines = tuple(
                (called[recipe], *(cells.get((recipe, condition), "") for condition in conditions))
                for recipe in _distinct(inside, "recipe")
            )
            columns = ("algorithm", *conditions)
            found.append(Table(title=f"{name}. {title}", columns=columns, lines=lines, note=note))
    return tuple(found)


def draw_panels(
    figure: Figure,
    rows: Rows,
    *,
    titles: Mapping[str, str],
    xlabels: Mapping[str, str],
    measure: str,
) -> None:
    """A line of panels for each dataset: means by condition, with intervals, seeds as crosses."""
    names, recipes = _distinct(rows, "dataset"), _distinct(rows, "recipe")
    drawn = [table for table in titles if any(row["table"] == table for row in rows)]
    grid = figure.subplots(len(names), len(drawn), squeeze=False, sharey="row")
    for panels, name in zip(grid, names, strict=True):
        for axes, table in zip(panels, drawn, strict=True):
            inside = [r for r in rows if r["dataset"] == name and r["table"] == table]
            conditions = ordered(_distinct(inside, "condition"))
            here = _distinct(inside, "recipe")
            for row in inside:
                aside = 0.1 * (here.index(row["recipe"]) - (len(here) - 1) / 2)
                at = conditions.index(row["condition"]) + aside
                picture.draw_score(axes, row, at=at, series=recipes.index(row["recipe"]))
            shown = [""] if conditions == list(UNCHANGED[:1]) else conditions
            axes.set_xticks(range(len(conditions)), shown)
            axes.set_xlim(-0.6, len(conditions) - 0.4)
            axes.set_xlabel(xlabels[table])
            axes.set_title(textwrap.fill(titles[table], TITLE_WIDTH))
        panels[0].set_ylabel(f"{name}\n{measure}")
    figure.legend(
        *picture.handles(list(recipe_titles(recipes).values())), loc="outside lower center", ncols=3
    )


def share_reached(reached: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The share of goals reached, `success`, and its 95% interval; `reached` holds 1 or 0 for each
    episode, a list a training seed. With one seed the interval is Wilson's over its episodes, with
    several a bootstrap over the means of the seeds.
    """
    from trajlm.evaluation.scores import bootstrap_interval, wilson_interval

    shares = [sum(each) / len(each) for each in reached]
    episodes = len(reached[0])
    if len(shares) > 1:
        interval, kind = bootstrap_interval(shares), "95% bootstrap over training seeds"
    else:
        interval = wilson_interval(round(sum(reached[0])), episodes)
        kind = "95% Wilson over episodes"
    return {
        "success": sum(shares) / len(shares),
        "interval": interval,
        "interval_kind": kind,
        "seeds": shares,
        "episodes": episodes,
    }


def ordered(conditions: Sequence[str]) -> list[str]:
    """What is unchanged first, then numbers and shares (`1/2`) by their size, then words."""

    def place(condition: str) -> tuple[int, int, str]:
        number = condition.removeprefix("1/")
        if condition in UNCHANGED:
            return 0, 0, condition
        return (1, int(number), "") if number.isdecimal() else (2, 0, condition)

    return sorted(conditions, key=place)


def _distinct(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))
