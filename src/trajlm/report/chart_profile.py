"""Performance profiles: the share of a method's runs above each score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trajlm.report.comparison import Comparison
from trajlm.report.drawing import DASHES, label_ticks
from trajlm.report.html import Markup
from trajlm.report.svg import NUM_SERIES, SERIES, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"dataset_score": "dataset_score", "d4rl_score": "d4rl_score", "return_mean": "Return"}


def profile(comparison: Comparison, *, key: str) -> Markup:
    """A falling step for each method, in the order and colours of the table."""
    thresholds, shares = comparison.profiles()

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for place, share in enumerate(shares):
            axes.step(
                thresholds, share, where="post", linewidth=2, color=SERIES[place % NUM_SERIES],
                linestyle=DASHES[place // NUM_SERIES % len(DASHES)],
            )  # fmt: skip
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(thresholds[0], thresholds[-1])
        axes.set_title("Share of training runs with a higher score", loc="left")
        axes.set_xlabel(NAMES[comparison.scale])
        label_ticks(axes.xaxis, narrow=narrow)
        label_ticks(axes.yaxis, narrow=narrow)

    names = ", ".join(method.name for method in comparison.methods)
    return render(draw, key=key, alt=f"Performance profiles of {names}", heights=(320, 280))
