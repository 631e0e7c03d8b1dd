"""Every evaluated episode as a dot, a line for each target and run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from trajlm.report.drawing import Series, label_ticks
from trajlm.report.formatting import amount, asked, bounds, count, finite
from trajlm.report.html import Markup
from trajlm.report.records import Episode
from trajlm.report.svg import GRID, INK, PAPER, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOLDEN = 0.6180339887498949
MAX_DOTS = 300
ALT_LENGTH = 1500

Line = tuple[Series, float | None, list[Episode]]


def strip(series: Sequence[Series], *, key: str) -> Markup | None:
    """Returns of single episodes, their mean and what was asked for; None without episodes."""
    lines: list[Line] = [
        (one, target, chosen)
        for target in _targets(series)
        for one in series
        if (chosen := [e for e in one.episodes if e.target == target])
    ]
    if not lines:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for place, line in enumerate(lines):
            _draw_line(axes, place, *line)
        _label_targets(axes, lines)
        axes.set_ylim(len(lines) - 0.45, -0.55)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_title("Asked for", loc="left", x=0)
        axes.set_xlabel("Return of one episode")
        label_ticks(axes.xaxis, narrow=narrow)

    alt = "Return of each episode: " + "; ".join(_described(*line) for line in lines)
    height = 76 + (54 if len(series) == 1 else 38) * len(lines)
    return render(draw, key=key, alt=alt[:ALT_LENGTH], heights=(height, height))


def _targets(series: Sequence[Series]) -> list[float | None]:
    found = {episode.target for one in series for episode in one.episodes}
    return sorted(found, key=lambda target: (target is None, target or 0.0))


def _described(one: Series, target: float | None, episodes: Sequence[Episode]) -> str:
    values = [episode.value for episode in episodes]
    extent = f"from {amount(min(values))} to {amount(max(values))}"
    return f"{one.name} asked {asked(target)}: {count(len(values), 'episode')} {extent}"


def _label_targets(axes: Axes, lines: Sequence[Line]) -> None:
    """One label for each target, in the middle of its lines, and a rule between targets."""
    ticks, labels = [], []
    for target, members in groupby(enumerate(lines), key=lambda pair: pair[1][1]):
        places = [place for place, _ in members]
        ticks.append((places[0] + places[-1]) / 2)
        labels.append(asked(target))
        axes.axhline(places[-1] + 0.5, color=GRID, linewidth=1, zorder=0)
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)


def _draw_line(
    axes: Axes, place: int, one: Series, target: float | None, episodes: Sequence[Episode]
) -> None:
    _draw_dots(axes, place, one, episodes)
    row = next((row for row in one.rows if row.get("target_return") == target), {})
    if finite(row.get("return_mean")) is not None:
        ends = bounds(row.get("return_interval"))
        if ends is not None:
            axes.plot(ends, [place, place], color=INK, linewidth=2.5, zorder=4)
        axes.plot(
            row["return_mean"], place, marker="D", color=INK, markersize=7,
            markeredgecolor=PAPER, markeredgewidth=1.2, zorder=5,
        )  # fmt: skip
    if target is not None:
        axes.plot([target, target], [place - 0.42, place + 0.42], color=INK, linewidth=2, zorder=3)


def _draw_dots(axes: Axes, place: int, one: Series, episodes: Sequence[Episode]) -> None:
    """At most `MAX_DOTS`, evenly picked: more would be a blot. Failed ones are crosses."""
    stride = -(-len(episodes) // MAX_DOTS)
    shown = episodes[::stride]
    # A low-discrepancy sequence spreads the dots; no random draw is needed.
    heights = place + ((np.arange(len(shown)) * GOLDEN) % 1.0 - 0.5) * 0.55
    values = np.array([episode.value for episode in shown])
    failed = np.array([episode.failed for episode in shown])
    early = np.array([episode.terminated for episode in shown]) & ~failed
    whole = ~early & ~failed
    axes.scatter(
        values[whole], heights[whole], s=26, color=one.colour, linewidths=0, alpha=0.5, zorder=2
    )
    axes.scatter(
        values[early], heights[early], s=26, facecolors="none", edgecolors=one.colour,
        linewidths=1.2, alpha=0.9, zorder=2,
    )  # fmt: skip
    axes.scatter(
        values[failed], heights[failed], s=34, marker="x", color=INK, linewidths=1.5, zorder=4
    )
