"""The picture of an experiment: one palette, one style, PNG and SVG of one drawing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajlm.core.files import replace_file
from trajlm.reproduce.base import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = "picture"
INK, MUTED, GRID, DATA = "#1b1e23", "#596270", "#e4e5e8", "#b9bec7"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#806600", "#4a4f57", "#56b4e9")
"""Okabe and Ito's colours, darkened where white would swallow them; tell series apart by marker too."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)))
DOTS_PER_INCH = 110
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "trajlm",
    "svg.fonttype": "path",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def draw(experiment: Experiment, results: Mapping[str, Any], folder: Path) -> list[Path]:
    """picture.png and picture.svg in `folder`. Equal results give equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    from trajlm.evaluation.drawing import in_few_colors

    written = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=experiment.figure_size, layout="constrained")
        experiment.draw(results, figure)
        settle(figure)
        for kind, metadata in (
            ("png", {"Software": None}),
            ("svg", {"Date": None, "Creator": None}),
        ):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
            path = folder / f"{PICTURE}.{kind}"
            drawn = buffer.getvalue()
            replace_file(path, in_few_colors(drawn) if kind == "png" else drawn)
            written.append(path)
    return written


def settle(figure: Figure) -> None:
    """Fix the layout, its places rounded: the solver's last bits differ from one call to the next."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, low, width, height = (round(n, 5) for n in axes.get_position(original=True).bounds)
        axes.set_position((left, low, width, height), which="original")


def draw_score(axes: Axes, row: Mapping[str, Any], *, at: float, series: int) -> None:
    """A row's `mean`, its `interval` where it has one, and its `seeds` as crosses."""
    colour, marker = SERIES[series % len(SERIES)], MARKERS[series % len(MARKERS)]
    if row["interval"] is not None:
        axes.plot([at, at], row["interval"], color=colour, linewidth=2)
        axes.plot([at] * len(row["seeds"]), row["seeds"], "x", color=colour, markersize=4)
    axes.plot(at, row["mean"], marker, color=colour)


def mean_and_interval(row: Mapping[str, Any] | None) -> str:
    """A row's `mean` and `interval` as text; nothing for no row."""
    if row is None:
        return ""
    if row["interval"] is None:
        return f"{row['mean']:.1f} (n=1)"
    return f"{row['mean']:.1f} [{row['interval'][0]:.0f}, {row['interval'][1]:.0f}]"


def handles(names: Sequence[str]) -> tuple[list[Any], list[str]]:
    """What a legend shows of series 0, 1, ...: their marks, and their names."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D(
            [], [], color=SERIES[n % len(SERIES)], marker=MARKERS[n % len(MARKERS)], linestyle="-"
        )
        for n in range(len(names))
    ]
    return marks, list(names)


def lines(*pairs: tuple[str, Any]) -> list[Any]:
    """What a legend shows of lines by (colour, dash)."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colour, linestyle=dash) for colour, dash in pairs]
