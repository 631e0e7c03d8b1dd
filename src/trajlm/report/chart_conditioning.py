"""The return-conditioning curve: asked against reached, over the returns that the data holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trajlm.report.drawing import Series, label_ticks
from trajlm.report.formatting import amount, asked, bounds
from trajlm.report.html import Markup
from trajlm.report.svg import BEYOND, DATA, INK, MUTED, PAPER, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Histogram = tuple[list[float], list[float]]
ALT_LENGTH = 1500


def conditioning(
    series: Sequence[Series], *, key: str, histogram: Histogram | None, best: float | None
) -> Markup:
    """Reached over asked with intervals; the data's histogram under it on the same axis.

    `histogram`: edges (n+1) and counts (n). `best`: the highest return in the data.
    """
    low, high = _span(series, histogram, best)

    def draw(figure: Figure, narrow: bool) -> None:
        ratios = [3.2, 1] if histogram else [1]
        grid = figure.subplots(
            len(ratios), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios}
        )
        axes = list(grid[:, 0])
        if histogram is not None:
            _draw_histogram(axes[1], histogram, narrow=narrow)
        _draw_curves(axes[0], series, low=low, high=high)
        _draw_best(axes, best, low=low, high=high, narrow=narrow)
        axes[0].set_title("Return reached", loc="left")
        label_ticks(axes[0].yaxis, narrow=narrow)
        axes[-1].set_xlabel("Return asked for")
        label_ticks(axes[-1].xaxis, narrow=narrow)

    alt = "Return reached over return asked for. " + "; ".join(map(_described, series))
    return render(draw, key=key, alt=alt[:ALT_LENGTH], heights=(560, 480))


def _described(one: Series) -> str:
    points = [
        f"asked {asked(row['target_return'])} reached {amount(row['return_mean'])}"
        for row in one.conditioned
    ]
    return f"{one.name}: {', '.join(points)}"


def _draw_curves(axes: Axes, series: Sequence[Series], *, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1.5, dashes=(5, 4), zorder=1)
    aside = 0.012 * (high - low)
    for one in series:
        rows = sorted(one.conditioned, key=lambda row: float(row["target_return"]))
        for row in rows:
            target, ends = row["target_return"], bounds(row.get("return_interval"))
            if ends is not None:
                axes.plot(
                    [target, target], ends, color=one.colour, linewidth=2.5, marker="_",
                    markersize=11, markeredgewidth=2, zorder=2,
                )  # fmt: skip
            # Beside the interval, which they would hide.
            means = one.seed_means(row)
            axes.plot(
                [target + aside] * len(means), means, color=one.colour, linestyle="none",
                marker="x", markersize=5, markeredgewidth=1.4, zorder=2,
            )  # fmt: skip
        axes.plot(
            [row["target_return"] for row in rows], [row["return_mean"] for row in rows],
            color=one.colour, linewidth=2, linestyle=one.dash, marker=one.marker, markersize=8,
            markeredgecolor=PAPER, markeredgewidth=1.5, zorder=3,
        )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)


def _draw_histogram(axes: Axes, histogram: Histogram, *, narrow: bool) -> None:
    edges, counts = histogram
    axes.stairs(counts, edges, fill=True, color=DATA)
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    axes.set_title("Episodes in the data with that return", loc="left")
    label_ticks(axes.yaxis, narrow=narrow, integer=True)


def _draw_best(
    axes: Sequence[Axes], best: float | None, *, low: float, high: float, narrow: bool
) -> None:
    if best is None or not low < best < high:
        return
    for one in axes:
        one.axvspan(best, high, color=BEYOND, alpha=0.13, linewidth=0, zorder=0)
        one.axvline(best, color=INK, linewidth=1.5, zorder=1)
    on_the_right = best > (low + high) / 2
    axes[0].annotate(
        f"best {amount(best)}" if narrow else f"best in the data: {amount(best)}",
        (best, 0.03), xycoords=("data", "axes fraction"),
        xytext=(-7 if on_the_right else 7, 0), textcoords="offset points",
        ha="right" if on_the_right else "left", va="bottom", color=INK, fontsize=12,
        bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )  # fmt: skip


def _span(
    series: Sequence[Series], histogram: Histogram | None, best: float | None
) -> tuple[float, float]:
    """Both axes' limits: the dashed line then runs from corner to corner."""
    values = [0.0, *([] if best is None else [best]), *(histogram[0] if histogram else [])]
    for one in series:
        for row in one.conditioned:
            values += [row["target_return"], row["return_mean"]]
            values += bounds(row.get("return_interval")) or ()
    low, high = min(values), max(values)
    pad = 0.04 * (high - low or 1.0)
    return low - pad, high + pad
