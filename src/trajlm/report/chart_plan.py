"""A plan drawn: a panel for each shown entry of the observation, and the score of every beam."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.report.drawing import label_ticks
from trajlm.report.html import Markup
from trajlm.report.plans import Plan
from trajlm.report.svg import INK, LIGHT, MUTED, SERIES, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEAM, TRUTH = SERIES[0], SERIES[1]
MOST_BEAMS = 64
PANEL_HEIGHT, LEGEND_HEIGHT = 250, 44
MOST_PANELS = 8

Paint = Callable[[str], str]
"""A stand-in colour to the one to draw with."""


def curves(plan: Plan, *, key: str) -> Markup:
    """For the page: in its colours, without a legend."""

    def draw(figure: Figure, narrow: bool) -> None:
        draw_plan(figure, plan, narrow=narrow, paint=str)

    panels = _panels(plan)
    heights = (PANEL_HEIGHT * _rows(panels), PANEL_HEIGHT * panels)
    return render(draw, key=key, alt=described(plan), heights=heights)


def described(plan: Plan) -> str:
    shown = ", ".join(plan.names[number] for number in plan.dimensions)
    return (
        f"{len(plan.scores)} predicted futures of {shown} from step {plan.step} on, the chosen one "
        "among them, beside what was observed"
    )


def height_of(plan: Plan) -> int:
    """Of a picture of its own, in CSS pixels."""
    return PANEL_HEIGHT * _rows(_panels(plan)) + LEGEND_HEIGHT


def draw_plan(figure: Figure, plan: Plan, *, narrow: bool, paint: Paint) -> None:
    """Fill a figure."""
    shown = plan.dimensions[:MOST_PANELS]
    count = _panels(plan)
    columns = 1 if narrow else _columns(count)
    panels = list(figure.subplots(-(-count // columns), columns, squeeze=False).flat)
    for axes, number in zip(panels, shown, strict=False):
        _draw_entry(axes, plan, number, paint=paint)
        axes.set_title(_title(plan.names[number]), loc="left")
        axes.set_xlabel("Step of the episode")
        label_ticks(axes.xaxis, narrow=narrow, integer=True)
        label_ticks(axes.yaxis, narrow=narrow)
    if _with_scores(plan):
        _draw_scores(panels[len(shown)], plan, paint=paint, narrow=narrow)
    for axes in panels[count:]:
        axes.set_visible(False)


def legend_handles(plan: Plan, paint: Paint) -> list[Any]:
    """What the lines are, for a picture of its own."""
    from matplotlib.lines import Line2D

    true, best = _words(plan)
    several = len(plan.scores) > 1
    handles = [
        Line2D([], [], color=paint(INK), linewidth=2, label="observed before"),
        Line2D([], [], color=paint(BEAM), linewidth=1, alpha=0.4, label="other beams"),
        Line2D([], [], color=paint(BEAM), linewidth=3, label=best),
        Line2D(
            [], [], color=paint(TRUTH), linewidth=2, linestyle=(0, (3, 1.5)), marker="o",
            markersize=4, label=true,
        ),
    ]  # fmt: skip
    return [handle for place, handle in enumerate(handles) if several or place != 1]


def _words(plan: Plan) -> tuple[str, str]:
    if plan.kind == "open_loop":
        return "recorded after it", "predicted"
    return "truly happened", "chosen beam"


def _panels(plan: Plan) -> int:
    return min(len(plan.dimensions), MOST_PANELS) + _with_scores(plan)


def _columns(panels: int) -> int:
    """Side by side on a wide screen, so that few places stay empty."""
    return 3 if panels in (3, 5, 6, 9) else min(panels, 2)


def _rows(panels: int) -> int:
    return -(-panels // _columns(panels))


def _with_scores(plan: Plan) -> bool:
    return len(plan.scores) > 1


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _draw_entry(axes: Axes, plan: Plan, number: int, *, paint: Paint) -> None:
    step, past = plan.step, plan.past[:, number]
    present = past[-1:]
    axes.axvline(step, color=paint(MUTED), linewidth=1, dashes=(2, 3), zorder=1)
    axes.plot(
        np.arange(step - len(past) + 1, step + 1), past, color=paint(INK), linewidth=2, zorder=3
    )
    ahead = np.arange(step, step + plan.horizon)
    opaque = 0.55 if len(plan.beams) <= 8 else 0.3
    for place in range(min(len(plan.beams), MOST_BEAMS)):
        if place != plan.chosen:
            future = np.concatenate([present, plan.beams[place, :, number]])
            axes.plot(ahead, future, color=paint(BEAM), linewidth=1, alpha=opaque, zorder=2)
    chosen = np.concatenate([present, plan.beams[plan.chosen, :, number]])
    axes.plot(ahead, chosen, color=paint(BEAM), linewidth=3, zorder=5)
    # As far as was planned: a plan's last action has no state after it.
    truth = np.concatenate([present, plan.truth[: max(1, plan.horizon - 1), number]])
    axes.plot(
        np.arange(step, step + len(truth)), truth, color=paint(TRUTH), linewidth=2,
        linestyle=(0, (3, 1.5)), marker="o", markersize=4, zorder=4,
    )  # fmt: skip
    if plan.ended and len(truth) > len(plan.truth):
        axes.plot(
            step + len(truth) - 1,
            truth[-1],
            color=paint(TRUTH),
            marker="X",
            markersize=10,
            zorder=6,
        )


def _draw_scores(axes: Axes, plan: Plan, *, paint: Paint, narrow: bool) -> None:
    places = np.arange(1, len(plan.scores) + 1)
    axes.plot(
        places,
        plan.scores,
        color=paint(BEAM),
        marker="o",
        markersize=4,
        linestyle="none",
        alpha=0.6,
    )
    axes.plot(
        places[plan.chosen], plan.scores[plan.chosen], color=paint(BEAM), marker="D", markersize=10,
        linestyle="none",
    )  # fmt: skip
    likelihood = plan.protocol.get("policy", {}).get("search") == "likelihood"
    likelihood |= plan.kind == "open_loop"
    unit = "log-probability, nats" if likelihood else "predicted return"
    axes.set_title(f"Score of each beam ({unit})", loc="left")
    axes.set_xlabel("Beam, best first")
    label_ticks(axes.xaxis, narrow=narrow, integer=True)
    label_ticks(axes.yaxis, narrow=narrow)


def light(colour: str) -> str:
    """On white."""
    return LIGHT.get(colour, colour)
