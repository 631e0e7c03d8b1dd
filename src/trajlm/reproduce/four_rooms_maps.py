"""Maps of the four rooms with the ways walked on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_map(axes: Axes, recordings: Sequence[Any]) -> None:
    """The walls, over the ways that were recorded."""
    from matplotlib.patches import Rectangle

    from trajlm.envs.four_rooms import SIDE, WALLS

    for places in recordings:
        axes.plot(*zip(*places, strict=True), color=picture.GRID, linewidth=0.7, zorder=0)
    for left, bottom, right, top in WALLS:
        size = (right - left, top - bottom)
        axes.add_patch(Rectangle((left, bottom), *size, color=picture.MUTED, linewidth=0, zorder=2))
    axes.set(
        xlim=(0, SIDE),
        ylim=(0, SIDE),
        aspect="equal",
        xlabel="x, steps are 0.5 at most",
        ylabel="y",
    )
    axes.set(xticks=range(0, 11, 2), yticks=range(0, 11, 2))
    axes.grid(visible=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)


def draw_way(axes: Axes, way: Mapping[str, Any], colour: str) -> None:
    """A way walked from its start to its goal, over the beams of the plan that it began with."""
    for beam in way["beams"]:
        axes.plot(*zip(*beam, strict=True), color=colour, alpha=0.03, linewidth=5, zorder=3)
    (x, y), (goal_x, goal_y) = way["path"][0], way["goal"]
    axes.plot(
        *zip(*way["path"], strict=True), color=colour, marker=".", markersize=4, linewidth=1.6,
        zorder=4,
    )  # fmt: skip
    axes.plot(x, y, "o", color=colour, markersize=9, markeredgecolor="white", zorder=5)
    axes.plot(goal_x, goal_y, "*", color=colour, markersize=16, markeredgecolor="white", zorder=5)
    if not way["reached"]:
        axes.plot(*way["path"][-1], "X", color=picture.INK, markersize=9, zorder=6, clip_on=False)


def draw_legend(panel: Any) -> None:
    """What the marks of the maps mean, below them."""
    from matplotlib.lines import Line2D

    ink = picture.INK
    entries = [
        Line2D([], [], color=ink, marker="o", linestyle="", markersize=8, label="start"),
        Line2D([], [], color=ink, marker="*", linestyle="", markersize=13, label="goal"),
        Line2D([], [], color=ink, marker=".", linewidth=1.6, label="path walked, a dot a step"),
        Line2D([], [], color=ink, alpha=0.25, linewidth=5, label="beams of a plan from the start"),
        Line2D([], [], color=ink, marker="X", linestyle="", markersize=8, label="not reached"),
        Line2D([], [], color=picture.DATA, linewidth=1, label="recordings in the data"),
    ]
    panel.legend(handles=entries, loc="outside lower center", ncols=6, fontsize=9)
