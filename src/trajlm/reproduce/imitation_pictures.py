"""Imitation's picture: a panel a body, and what an action costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import imitation_ways as ways
from trajlm.reproduce import picture
from trajlm.reproduce.imitation_ways import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """A panel a body: percent of the behaviour's return; below, what an action costs."""
    rows, bodies = results["rows"], list(results["picture"]["behaviours"])
    names = ways.methods(rows)
    grid = figure.subplots(
        2, len(bodies), squeeze=False, sharey="row", sharex="col", height_ratios=(2, 1)
    )
    for column, body in enumerate(bodies):
        own = {row["method"]: row for row in rows if row["body"] == body}
        found = results["picture"]["behaviours"][body]
        _draw_shares(grid[0, column], own, names, in_bins=found.get("in_bins"))
        _draw_costs(grid[1, column], own, names)
        grid[0, column].set_title(f"{body}: behaviour {found['mean']:,.0f}")
        grid[1, column].set_xticks(
            range(len(names)), [_wrapped(name) for name in names], fontsize=8
        )
    seen = [value for row in rows for value in (*row["seeds"], *(row["interval"] or ()))]
    grid[0, 0].set_ylim(1.05 * min(0.0, *seen), 1.05 * max(100.0, *PUBLISHED.values(), *seen))
    grid[0, 0].set_ylabel("% of the behaviour's return")
    grid[1, 0].set_ylabel("ms an action")
    told = {"the behaviour": (picture.MUTED, "--"), "published": (picture.INK, "-")}
    if any("in_bins" in each for each in results["picture"]["behaviours"].values()):
        told["the behaviour by its likeliest bins"] = (picture.MUTED, ":")
    marks = picture.lines(*told.values())
    figure.legend(marks, list(told), loc="outside upper right", ncols=len(told), fontsize=9)


def _draw_shares(
    axes: Axes,
    own: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    *,
    in_bins: Mapping[str, Any] | None,
) -> None:
    axes.axhline(100, color=picture.MUTED, linestyle="--", linewidth=1)
    if in_bins is not None:
        axes.axhline(in_bins["share"], color=picture.MUTED, linestyle=":", linewidth=1)
    for place, name in enumerate(names):
        row = own[name]
        picture.draw_score(axes, row, at=place, series=place)
        axes.annotate(
            f"{row['mean']:.0f}", (place, row["mean"]), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=9,
        )  # fmt: skip
        if row["published"] is not None:
            axes.plot([place - 0.3, place + 0.3], [row["published"]] * 2, color=picture.INK)
    axes.set_xlim(-0.6, len(names) - 0.2)
    axes.grid(visible=False, axis="x")


def _draw_costs(axes: Axes, own: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        colour = picture.SERIES[place % len(picture.SERIES)]
        marker = picture.MARKERS[place % len(picture.MARKERS)]
        axes.plot(place, own[name]["milliseconds"], marker, color=colour)
        axes.plot(
            place, own[name]["milliseconds_alone"], marker, color=colour, markerfacecolor="none"
        )
    axes.set_yscale("log")
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("filled: many environments at once; hollow: one alone", fontsize=8)


def _wrapped(name: str) -> str:
    """`Trajectory Transformer, search` as TT above search."""
    title, _, way = name.partition(", ")
    initials = "".join(word[0] for word in title.split()) if " " in title else title
    return f"{initials}\n{way}"
