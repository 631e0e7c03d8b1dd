"""What the charts share: the palette's places, ticks that a person reads, legends in HTML.

Runs are told apart by colour (a palette that survives colour blindness), marker and dash alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trajlm.report.formatting import finite
from trajlm.report.html import Markup, tag
from trajlm.report.records import Entry, Episode, Row
from trajlm.report.svg import NUM_SERIES, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P")
KEYS = ("●", "■", "▲", "◆", "▼", "✚")
DASHES = ("-", (0, (6, 2)), (0, (2, 2)))


@dataclass(frozen=True, kw_only=True)
class Series:
    """One run or group: its name, its place in the palette, and what the charts draw of it.

    `metrics`: a mapping a run, by name and update. `history`: an evaluation's rows by update.
    """

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

    @property
    def conditioned(self) -> list[Row]:
        """The rows with both a target and a mean."""
        names = ("target_return", "return_mean")
        return [row for row in self.rows if all(finite(row.get(n)) is not None for n in names)]

    @staticmethod
    def seed_means(row: Row) -> list[float]:
        """The means of the training seeds behind a group's row."""
        means = row.get("return_means")
        return [m for m in means if finite(m) is not None] if isinstance(means, list) else []


def series_of(entries: Sequence[Entry]) -> list[Series]:
    """The entries as the charts know them, each with its place in the palette."""
    found = []
    for index, entry in enumerate(entries):
        first = entry.runs[0].evaluations if entry.runs else ()
        one = Series(
            name=entry.name,
            index=index,
            rows=entry.rows,
            episodes=entry.episodes,
            metrics=tuple(run.metrics for run in entry.runs),
            history={evaluation.step: evaluation.rows for evaluation in first if evaluation.rows},
        )
        found.append(one)
    return found


def label_ticks(axis: Any, *, narrow: bool, scale: float = 1.0, integer: bool = False) -> None:
    """Few ticks, thousands separated; values are shown divided by `scale`."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    nbins = (4 if narrow else 7) if axis.axis_name == "x" else 5
    if isinstance(axis.get_major_locator(), MaxNLocator):
        axis.get_major_locator().set_params(nbins=nbins, integer=integer)
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value / scale)))


def tick(value: float) -> str:
    """A tick's text: 5000 -> '5,000', 0.25 -> '0.25'."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return text.replace("-", "−")


def label_logarithm(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def small_scale(greatest: float) -> tuple[float, str]:
    """(divisor, suffix of the title) for values below a hundredth: (1e-4, ', × 10⁻⁴')."""
    if not 0 < greatest < 0.01:
        return 1.0, ""
    exponent = math.floor(math.log10(greatest))
    return 10.0**exponent, f", × 10⁻{str(-exponent).translate(SUPERSCRIPTS)}"


SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


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
        text = "No chart: matplotlib is not installed. pip install 'trajlm[report]' brings it."
        return tag("p", text, class_="gap")
