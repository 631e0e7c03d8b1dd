"""Returns by dataset and method, each dataset on a scale of its own, beside what its data return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import picture
from trajlm.reproduce.taking_part import titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOM = 1.12
"""Above the highest mark, for its label."""


def draw_returns(results: Mapping[str, Any], figure: Figure) -> None:
    """A panel a dataset: a mark a method, its seeds and interval, the data's mean as a line."""
    rows = results["rows"]
    if not rows:
        figure.text(0.5, 0.5, "no training is there yet", ha="center")
        return
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = [row for row in rows if row["dataset"] == name]
        axes.axhline(own[0]["data_mean"], color=picture.MUTED, linestyle="--", linewidth=1)
        for row in own:
            place = recipes.index(row["recipe"])
            picture.draw_score(axes, row, at=place, series=place)
            axes.annotate(
                f"{row['mean']:,.0f}", (place, row["mean"]), xytext=(8, 0),
                textcoords="offset points", va="center", fontsize=9,
            )  # fmt: skip
        seen = [value for row in own for value in (row["data_mean"], *row["seeds"])]
        axes.set_ylim(min(0.0, ROOM * min(seen)), ROOM * max(seen))
        axes.set_xlim(-0.5, len(recipes) - 0.2)
        axes.set_xticks([])
        axes.grid(visible=False, axis="x")
        axes.set_title(name)
    figure.axes[0].set_ylabel("return")
    marks, words = picture.handles(list(titles(recipes).values()))
    marks += picture.lines((picture.MUTED, "--"))
    figure.legend(
        marks, [*words, "mean of the data's episodes"], loc="outside lower center", ncols=4
    )
