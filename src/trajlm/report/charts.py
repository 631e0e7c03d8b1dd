"""The page's charts: what is drawn, from plain data. How it becomes SVG is `svg.py`'s.

Runs are told apart by colour (a palette that survives colour blindness), marker and dash alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.report.formatting import amount, asked, bounds, finite
from trajlm.report.html import Markup, join, tag
from trajlm.report.records import Episode, Row
from trajlm.report.svg import (
    BEYOND,
    DATA,
    GRID,
    INK,
    MUTED,
    NUM_SERIES,
    SERIES,
    SURFACE,
    render,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P")
KEYS = ("●", "■", "▲", "◆", "▼", "✚")
DASHES = ("-", (0, (6, 2)), (0, (2, 2)))
MAX_POINTS = 300
GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class Series:
    """One run or group: its name, its place in the palette, and what the charts draw of it."""

    name: str
    index: int
    rows: tuple[Row, ...] = ()
    episodes: tuple[Episode, ...] = ()
    metrics: tuple[Mapping[str, Mapping[int, float]], ...] = ()
    history: Mapping[int, tuple[Row, ...]] = field(default_factory=dict)

    @property
    def colour(self) -> str:
        return SERIES[self.index % NUM_SERIES]

    @property
    def marker(self) -> str:
        return MARKERS[self.index % NUM_SERIES]

    @property
    def dash(self) -> Any:
        return DASHES[self.index // NUM_SERIES % len(DASHES)]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One small chart of the training section; `values` may hold several metrics."""

    title: str
    metrics: tuple[tuple[str, str], ...]  # (metric, "line" or "points")
    logarithmic: bool = False


PANELS = (
    Panel(
        title="Loss",
        metrics=(("train/loss", "line"), ("validation/loss", "points")),
        logarithmic=True,
    ),
    Panel(title="Learning rate", metrics=(("train/learning_rate", "line"),)),
    Panel(title="Gradient norm, before clipping", metrics=(("train/gradient_norm", "line"),)),
    Panel(title="Updates per second", metrics=(("perf/updates_per_s", "line"),)),
)


# ---- asked against achieved -----------------------------------------------------------------


def conditioning(
    series: Sequence[Series],
    *,
    key: str,
    histogram: tuple[list[float], list[float]] | None,
    best: float | None,
) -> Markup:
    """Achieved over asked return with intervals; the data's returns under it on the same axis."""
    low, high = _span(series, histogram, best)

    def draw(figure: Figure, narrow: bool) -> None:
        if histogram is None:
            upper, lower = figure.subplots(), None
        else:
            upper, lower = figure.subplots(
                2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]}
            )
        _draw_conditioning(upper, series, low=low, high=high)
        _draw_best(upper, lower, best, low=low, high=high)
        upper.set_title("Return reached", loc="left")
        if lower is not None and histogram is not None:
            lower.stairs(histogram[1], histogram[0], fill=True, color=DATA)
            lower.set_ylim(bottom=0)
            lower.grid(visible=False, axis="x")
            lower.set_title("Episodes in the data with that return", loc="left")
            lower.yaxis.get_major_locator().set_params(nbins=3, integer=True)
        bottom = upper if lower is None else lower
        bottom.set_xlabel("Return asked for")
        _thousands(bottom.xaxis, narrow)
        _thousands(upper.yaxis, narrow)
        if lower is not None:
            _thousands(lower.yaxis, narrow)

    alt = "Return reached over return asked for. " + "; ".join(
        f"{one.name}: "
        + ", ".join(
            f"asked {asked(r.get('target_return'))} reached {amount(r.get('return_mean'))}"
            for r in _conditioned(one)
        )
        for one in series
    )
    return render(draw, key=key, alt=alt[:1500], heights=(560, 480))


def _draw_conditioning(axes: Axes, series: Sequence[Series], *, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1.5, dashes=(5, 4), zorder=1)
    for one in series:
        points = [
            (float(r["target_return"]), float(r["return_mean"]), r) for r in _conditioned(one)
        ]
        points.sort(key=lambda point: point[0])
        x, y = [p[0] for p in points], [p[1] for p in points]
        for target, _, row in points:
            ends = bounds(row.get("return_interval"))
            if ends is not None:
                axes.plot(
                    [target, target],
                    ends,
                    color=one.colour,
                    linewidth=2.5,
                    marker="_",
                    markersize=11,
                    markeredgewidth=2,
                    zorder=2,
                )
            means = [m for m in row.get("seed_means") or () if finite(m) is not None]
            axes.plot(
                [target] * len(means),
                means,
                color=one.colour,
                linestyle="none",
                marker="x",
                markersize=5,
                alpha=0.8,
                zorder=2,
            )
        axes.plot(
            x,
            y,
            color=one.colour,
            linewidth=2,
            linestyle=one.dash,
            marker=one.marker,
            markersize=8,
            markeredgecolor=SURFACE,
            markeredgewidth=1.5,
            zorder=3,
        )
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)


def _draw_best(
    upper: Axes, lower: Axes | None, best: float | None, *, low: float, high: float
) -> None:
    if best is None or not low < best < high:
        return
    for axes in (upper, lower):
        if axes is not None:
            axes.axvspan(best, high, color=BEYOND, alpha=0.13, linewidth=0, zorder=0)
            axes.axvline(best, color=INK, linewidth=1.5, zorder=1)
    right_half = best > (low + high) / 2
    upper.annotate(
        f"best in the data: {amount(best)}", (best, 0.03), xycoords=("data", "axes fraction"),
        xytext=(-7 if right_half else 7, 0), textcoords="offset points",
        ha="right" if right_half else "left", va="bottom", color=INK, fontsize=12,
    )  # fmt: skip


def _conditioned(one: Series) -> list[Row]:
    return [
        row
        for row in one.rows
        if finite(row.get("target_return")) is not None
        and finite(row.get("return_mean")) is not None
    ]


def _span(
    series: Sequence[Series],
    histogram: tuple[list[float], list[float]] | None,
    best: float | None,
) -> tuple[float, float]:
    values = [0.0, *([] if best is None else [best]), *(histogram[0] if histogram else [])]
    for one in series:
        for row in _conditioned(one):
            values += [row["target_return"], row["return_mean"]]
            values += bounds(row.get("return_interval")) or ()
    low, high = min(values), max(values)
    pad = 0.04 * (high - low or 1.0)
    return low - pad, high + pad


# ---- training -------------------------------------------------------------------------------


def training(series: Sequence[Series], *, key: str) -> Markup | None:
    """Small multiples over updates; None where no run has any metric."""
    panels = [
        panel for panel in PANELS
        if any(m.get(name) for one in series for m in one.metrics for name, _ in panel.metrics)
    ]  # fmt: skip
    with_history = [one for one in series if len(one.history) > 1]
    number = len(panels) + bool(with_history)
    if number == 0:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        columns = 1 if narrow or number == 1 else 2
        grid = figure.subplots(-(-number // columns), columns, squeeze=False)
        axes = list(grid.flat)
        for panel, one in zip(panels, axes, strict=False):
            _draw_panel(one, panel, series, narrow)
        if with_history:
            _draw_history(axes[len(panels)], with_history, narrow)
        for unused in axes[number:]:
            unused.set_axis_off()
        for one in axes[:number]:
            one.set_xlabel("Update" if narrow or one in grid[-1] else "")
            _thousands(one.xaxis, narrow)

    rows = -(-number // 2)
    alt = "Over updates: " + ", ".join(panel.title.lower() for panel in panels) + "."
    return render(draw, key=key, alt=alt, heights=(60 + 240 * rows, 215 * number))


def _draw_panel(axes: Axes, panel: Panel, series: Sequence[Series], narrow: bool) -> None:
    seen: list[float] = []
    for one in series:
        for metrics in one.metrics:
            for name, style in panel.metrics:
                steps, values = thinned(metrics.get(name, {}))
                if len(steps) == 0:
                    continue
                seen += list(values)
                if style == "line":
                    single: dict[str, Any] = {"marker": one.marker} if len(steps) == 1 else {}
                    axes.plot(
                        steps, values, color=one.colour, linewidth=1.4, linestyle=one.dash,
                        alpha=0.75, **single,
                    )  # fmt: skip
                else:
                    axes.plot(
                        steps, values, color=one.colour, linewidth=1.2, marker=one.marker,
                        markersize=5.5, markeredgecolor=SURFACE, zorder=3,
                    )  # fmt: skip
    axes.set_title(panel.title, loc="left")
    positive = bool(seen) and min(seen) > 0
    if panel.logarithmic and positive and max(seen) > 8 * min(seen):
        axes.set_yscale("log")
        _plain_logarithm(axes)
        axes.set_title(f"{panel.title} (logarithmic)", loc="left")
        return
    if positive or (seen and min(seen) == 0):
        axes.set_ylim(bottom=0, top=max(seen) * 1.08 or None)
    _thousands(axes.yaxis, narrow)


def _draw_history(axes: Axes, series: Sequence[Series], narrow: bool) -> None:
    """The highest target's return at each evaluation."""
    target = max(
        (float(r["target_return"]) for one in series for r in _conditioned(one)), default=None
    )
    for one in series:
        points = [
            (step, float(row["return_mean"]))
            for step, rows in sorted(one.history.items())
            for row in rows
            if row.get("target_return") == target and finite(row.get("return_mean")) is not None
        ]
        axes.plot(
            [p[0] for p in points], [p[1] for p in points], color=one.colour, marker=one.marker,
            linestyle=one.dash, markeredgecolor=SURFACE, markersize=7, linewidth=1.6,
        )  # fmt: skip
    title = "Return reached" if target is None else f"Return reached, asked for {amount(target)}"
    axes.set_title(title, loc="left")
    _thousands(axes.yaxis, narrow)


def thinned(values: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Updates and values; above `MAX_POINTS` neighbours are averaged into as many bins."""
    steps = np.fromiter(values.keys(), np.float64, len(values))
    numbers = np.fromiter(values.values(), np.float64, len(values))
    if len(steps) <= MAX_POINTS:
        return steps, numbers
    starts = np.linspace(0, len(steps), MAX_POINTS, endpoint=False).astype(np.int64)
    sizes = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(numbers, starts) / sizes


# ---- episodes -------------------------------------------------------------------------------


def strip(series: Sequence[Series], *, key: str) -> Markup | None:
    """Every episode's return, a line for each run and target; None without episodes."""
    lines = [
        (one, target, [e for e in one.episodes if e.target == target])
        for target in _targets(series)
        for one in series
        if any(e.target == target for e in one.episodes)
    ]
    if not lines:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for place, (one, target, episodes) in enumerate(lines):
            _draw_strip(axes, place, one, target, episodes)
        axes.set_yticks(range(len(lines)), [asked(target) for _, target, _ in lines])
        axes.set_ylim(len(lines) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_title("Asked for", loc="left", x=0)
        axes.set_xlabel("Return of one episode")
        _thousands(axes.xaxis, narrow)

    alt = "Return of each episode: " + "; ".join(
        f"{one.name} asked {asked(target)}: {len(episodes)} episodes from "
        f"{amount(min(e.value for e in episodes))} to {amount(max(e.value for e in episodes))}"
        for one, target, episodes in lines
    )
    height = 76 + 54 * len(lines)
    return render(draw, key=key, alt=alt[:1500], heights=(height, height))


def _targets(series: Sequence[Series]) -> list[float | None]:
    found = {episode.target for one in series for episode in one.episodes}
    return sorted(found, key=lambda target: (target is None, target or 0.0))


def _draw_strip(
    axes: Axes, place: int, one: Series, target: float | None, episodes: Sequence[Episode]
) -> None:
    # A low-discrepancy sequence spreads the dots; no random draw is needed.
    offsets = ((np.arange(len(episodes)) * GOLDEN) % 1.0 - 0.5) * 0.55
    for early in (False, True):
        chosen = [i for i, e in enumerate(episodes) if e.terminated == early and not e.failed]
        axes.scatter(
            [episodes[i].value for i in chosen], place + offsets[chosen], s=26,
            facecolors="none" if early else one.colour, edgecolors=one.colour,
            linewidths=1.2 if early else 0, alpha=0.9 if early else 0.5, zorder=2,
        )  # fmt: skip
    lost = [i for i, e in enumerate(episodes) if e.failed]
    axes.scatter(
        [episodes[i].value for i in lost], place + offsets[lost], s=34, marker="x",
        color=INK, linewidths=1.5, zorder=4,
    )  # fmt: skip
    rows = [row for row in one.rows if row.get("target_return") == target]
    if rows and finite(rows[0].get("return_mean")) is not None:
        ends = bounds(rows[0].get("return_interval"))
        if ends is not None:
            axes.plot(ends, [place, place], color=INK, linewidth=2.5, zorder=4)
        axes.plot(
            rows[0]["return_mean"], place, marker="D", color=INK, markersize=7,
            markeredgecolor=SURFACE, markeredgewidth=1.2, zorder=5,
        )  # fmt: skip
    if target is not None:
        axes.plot([target, target], [place - 0.4, place + 0.4], color=INK, linewidth=2, zorder=3)
    axes.axhline(place + 0.5, color=GRID, linewidth=1, zorder=0)


# ---- axes and legends -----------------------------------------------------------------------


def _thousands(axis: Any, narrow: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    nbins = (4 if narrow else 7) if axis.axis_name == "x" else 5
    if isinstance(axis.get_major_locator(), MaxNLocator):
        axis.get_major_locator().set_params(nbins=nbins)
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def tick(value: float) -> str:
    """A tick's text: 5000 -> '5,000', 0.00025 -> '0.00025', 1e-07 -> '1e-07'."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _plain_logarithm(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend(items: Sequence[tuple[str, str]]) -> Markup:
    """(kind, text) pairs; a kind is a series' number or the name of a key drawn in CSS."""
    return tag("ul", (tag("li", _key(kind), " ", text) for kind, text in items), class_="legend")


def _key(kind: str) -> Markup:
    if kind.isdigit():
        place = int(kind) % NUM_SERIES
        return tag("span", KEYS[place], class_=f"key series-{place + 1}", aria_hidden="true")
    return tag("span", class_=f"key {kind}", aria_hidden="true")


def guarded(chart: Callable[[], Markup | None]) -> Markup | None:
    """The chart, or why there is none: matplotlib is an optional package."""
    try:
        return chart()
    except ImportError:
        return join(
            tag("p", "No chart: matplotlib is not installed. 'pip install matplotlib' brings it.",
                class_="gap")
        )  # fmt: skip
