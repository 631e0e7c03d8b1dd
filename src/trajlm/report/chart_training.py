"""Training curves: small multiples over updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.report.drawing import Series, label_logarithm, label_ticks, small_scale
from trajlm.report.formatting import amount, finite
from trajlm.report.html import Markup
from trajlm.report.svg import PAPER, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 300
MAX_POINTS_OF_MANY = 100
RATIO_FOR_LOGARITHM = 8.0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One small chart. `metrics`: (name, 'line' or 'points')."""

    title: str
    metrics: tuple[tuple[str, str], ...]
    may_be_logarithmic: bool = False


PANELS = (
    Panel(
        title="Loss",
        metrics=(("train/loss", "line"), ("validation/loss", "points")),
        may_be_logarithmic=True,
    ),
    Panel(title="Learning rate", metrics=(("train/learning_rate", "line"),)),
    Panel(title="Gradient norm, before clipping", metrics=(("train/gradient_norm", "line"),)),
    Panel(title="Updates per second", metrics=(("perf/updates_per_s", "line"),)),
)


def training(series: Sequence[Series], *, key: str, target: float | None) -> Markup | None:
    """Loss, learning rate, gradient norm, updates per second, and the return reached at each
    evaluation when asked for `target`; None where no run has any of them.
    """
    panels = [panel for panel in PANELS if any(_has(panel, one) for one in series)]
    evaluated = [one for one in series if len(_history(one, target)) > 1]
    number = len(panels) + bool(evaluated)
    if number == 0:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        places = _places(figure, number, columns=1 if narrow else 2)
        for panel, axes in zip(panels, places, strict=False):
            _draw_panel(axes, panel, series, narrow=narrow)
        if evaluated:
            _draw_history(places[-1], evaluated, target, narrow=narrow)
        for place, axes in enumerate(places):
            lowest = narrow or place >= number - (1 if number % 2 else 2)
            axes.set_xlabel("Update" if lowest else "")
            label_ticks(axes.xaxis, narrow=narrow)

    rows = -(-number // 2)
    alt = "Over updates: " + ", ".join(panel.title.lower() for panel in panels) + "."
    return render(draw, key=key, alt=alt, heights=(60 + 230 * rows, 215 * number))


def _places(figure: Figure, number: int, *, columns: int) -> list[Axes]:
    """Axes in reading order; the last one fills its row."""
    rows = -(-number // columns)
    grid = figure.add_gridspec(rows, columns)
    places = [figure.add_subplot(grid[i // columns, i % columns]) for i in range(number - 1)]
    last = number - 1
    return [*places, figure.add_subplot(grid[last // columns, last % columns :])]


def _has(panel: Panel, one: Series) -> bool:
    return any(metrics.get(name) for metrics in one.metrics for name, _ in panel.metrics)


def _draw_panel(axes: Axes, panel: Panel, series: Sequence[Series], *, narrow: bool) -> None:
    many = sum(len(one.metrics) for one in series) > 1
    seen: list[float] = []
    for one in series:
        for metrics in one.metrics:
            for name, style in panel.metrics:
                limit = MAX_POINTS_OF_MANY if many else MAX_POINTS
                steps, values = thinned(metrics.get(name, {}), limit=limit)
                seen += values.tolist()
                _draw_curve(axes, one, steps, values, style=style)
    positive = min(seen, default=0.0) > 0
    if panel.may_be_logarithmic and positive and max(seen) > RATIO_FOR_LOGARITHM * min(seen):
        axes.set_yscale("log")
        label_logarithm(axes)
        axes.set_title(f"{panel.title} (logarithmic)", loc="left")
        return
    scale, suffix = small_scale(max(seen, default=0.0))
    axes.set_title(panel.title + suffix, loc="left")
    if min(seen, default=0.0) >= 0 and max(seen, default=0.0) > 0:
        axes.set_ylim(bottom=0, top=max(seen) * 1.08)
    label_ticks(axes.yaxis, narrow=narrow, scale=scale)


def _draw_curve(
    axes: Axes, one: Series, steps: np.ndarray, values: np.ndarray, *, style: str
) -> None:
    if style == "points":
        axes.plot(
            steps, values, color=one.colour, linewidth=1.2, marker=one.marker, markersize=5.5,
            markeredgecolor=PAPER, zorder=3,
        )  # fmt: skip
        return
    marker: Any = one.marker if len(steps) == 1 else None
    axes.plot(
        steps, values, color=one.colour, linewidth=1.4, linestyle=one.dash, alpha=0.75,
        marker=marker,
    )  # fmt: skip


def _history(one: Series, target: float | None) -> list[tuple[int, float]]:
    return [
        (step, float(row["return_mean"]))
        for step, rows in sorted(one.history.items())
        for row in rows
        if row.get("target_return") == target and finite(row.get("return_mean")) is not None
    ]


def _draw_history(
    axes: Axes, series: Sequence[Series], target: float | None, *, narrow: bool
) -> None:
    for one in series:
        points = _history(one, target)
        axes.plot(
            [step for step, _ in points], [mean for _, mean in points], color=one.colour,
            marker=one.marker, linestyle=one.dash, markeredgecolor=PAPER, markersize=7,
            linewidth=1.6,
        )  # fmt: skip
    title = "Return reached" if target is None else f"Return reached, asked for {amount(target)}"
    axes.set_title(title, loc="left")
    label_ticks(axes.yaxis, narrow=narrow)


def thinned(values: Mapping[int, float], *, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Updates and values; more than `limit` are averaged with their neighbours into as many."""
    steps = np.fromiter(values.keys(), np.float64, len(values))
    numbers = np.fromiter(values.values(), np.float64, len(values))
    if len(steps) <= limit:
        return steps, numbers
    starts = np.linspace(0, len(steps), limit, endpoint=False).astype(np.int64)
    sizes = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(numbers, starts) / sizes
