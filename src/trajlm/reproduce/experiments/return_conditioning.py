"""Does a model get the return it is asked for? Achieved against asked return, over the data's returns.

Chen et al. 2021 (arXiv 2106.01345), section 5.2 and figure 4, on datasets of D4RL and Atari. Here on
the shipped tiers of three bodies, at twelve targets from below the data to beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.evaluation.scores import bootstrap_interval, rank_correlation
from trajlm.reproduce import picture, taking_part
from trajlm.reproduce.base import Experiment, Findings, Published, Scale, Table
from trajlm.reproduce.context import Context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIERS = ("replay", "medium-expert")
NUM_TARGETS = 12
BELOW, BEYOND = 0.1, 0.25
"""How far the targets reach out of the data's returns, as shares of their range."""
FOLLOWS = 0.9
"""A rank correlation from which on what is achieved is said to follow what is asked for."""


def refuses(recipe: str) -> str | None:
    return None if taking_part.takes_target(recipe) else "its policy takes no target return"


def run(context: Context) -> Findings:
    from trajlm.data.load import load_dataset
    from trajlm.data.summary import summarize

    settings = context.settings
    facts, cells = {}, {}
    for body, steps in settings["bodies"].items():
        for tier in TIERS:
            data = context.shipped(body, tier, steps=steps)
            summary = summarize(load_dataset(data))
            facts[f"{body}, {tier}"] = {
                "low": summary["return_min"],
                "best": summary["return_max"],
                "histogram": summary["return_histogram"],
            }
            asked = targets(summary["return_min"], summary["return_max"])
            for recipe in context.algorithms:
                cells[f"{body}, {tier}", recipe] = [
                    context.cell(
                        *(recipe, body, tier), recipe=recipe, data=data, seed=seed, targets=asked,
                        steps=settings["updates"], episodes=settings["episodes"],
                    )
                    for seed in context.seeds
                ]  # fmt: skip
    found = {
        row["command"]: row for row in context.train([c for each in cells.values() for c in each])
    }
    curves = [
        curve(data, recipe, [found[cell.command] for cell in each], facts[data])
        for (data, recipe), each in cells.items()
    ]
    return findings(context, curves, facts)


def targets(low: float, best: float) -> list[float]:
    """Evenly spaced, from below `low` to beyond `best`."""
    width = best - low
    ends = (low - BELOW * width, best + BEYOND * width)
    return [round(float(target), 1) for target in np.linspace(*ends, NUM_TARGETS)]


def curve(
    data: str, recipe: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """One line of the picture: what was achieved at each target, over seeds, and two numbers of it."""
    asked = np.array([row["target_return"] for row in rows[0]["rows"]])
    means = np.array([[row["return_mean"] for row in each["rows"]] for each in rows])  # (seeds, n)
    inside = (facts["low"] <= asked) & (asked <= facts["best"])
    width = facts["best"] - facts["low"]
    return {
        "data": data,
        "recipe": recipe,
        "asked": asked.tolist(),
        "seeds": means.tolist(),
        "mean": means.mean(axis=0).tolist(),
        "intervals": [bootstrap_interval(column) for column in means.T],
        "rank_correlation": rank_correlation(asked[inside], means.mean(axis=0)[inside]),
        "distance": float(np.abs(means - asked)[:, inside].mean() / width),
        "highest": float(means.mean(axis=0).max()),
        "best": facts["best"],
    }


def findings(
    context: Context, curves: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> Findings:
    called = taking_part.titles(context.algorithms)
    lines = tuple(
        (
            line["data"], called[line["recipe"]], f"{line['rank_correlation']:.2f}", f"{line['distance']:.2f}",
            f"{line['highest']:,.0f}", f"{line['best']:,.0f}",
        )
        for line in curves
    )  # fmt: skip
    following = [line for line in curves if line["rank_correlation"] >= FOLLOWS]
    above = [line for line in curves if line["highest"] > line["best"]]
    distance = float(np.mean([line["distance"] for line in curves]))
    return Findings(
        held=context.held(len(following), of=len(curves)),
        verdict=(
            f"On {len(following)} of {len(curves)} datasets and algorithms the achieved return follows "
            f"the asked one (rank correlation {FOLLOWS} or more within the data's returns); what is "
            f"achieved lies {distance:.2f} of the data's range from what is asked, on average. Asked "
            f"for more than the data hold, {len(above)} of them exceed the best episode on average."
        ),
        tables=(
            Table(
                title="Achieved against asked return",
                columns=(
                    "data",
                    "algorithm",
                    "rank correlation",
                    "distance",
                    "highest",
                    "data's best",
                ),
                lines=lines,
                note=(
                    f"{len(context.seeds)} seeds, {context.settings['episodes']} episodes a target and "
                    "seed; rank correlation and distance (a share of the data's range) at the targets "
                    "within the data's returns; highest: the mean at the best target"
                ),
            ),
        ),
        rows=curves,
        picture={"data": dict(facts)},
    )


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """A panel for each dataset: the curves above the histogram of the data's returns."""
    found = results["picture"]["data"]
    recipes = list(dict.fromkeys(line["recipe"] for line in results["rows"]))
    grid = figure.subfigures(-(-len(found) // 2), min(2, len(found)), squeeze=False)
    for panel, (name, facts) in zip(np.ravel(grid), found.items(), strict=False):
        above, below = panel.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        lines = [line for line in results["rows"] if line["data"] == name]
        ends = [lines[0]["asked"][0], lines[0]["asked"][-1]]
        above.plot(ends, ends, color=picture.MUTED, linestyle="--", linewidth=1)
        for line in lines:
            _draw_curve(above, line, recipes.index(line["recipe"]))
        for axes in (above, below):
            axes.axvline(facts["best"], color=picture.INK, linewidth=1)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        above.yaxis.set_major_formatter("{x:,.0f}")
        above.set_title(name)
        above.set_ylabel("return achieved")
        histogram = facts["histogram"]
        below.stairs(histogram["counts"], histogram["edges"], fill=True, color=picture.DATA)
        below.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        below.set_ylabel("episodes")
        below.set_xlabel("return asked for; grey: returns in the data")
    marks, names = picture.handles(list(taking_part.titles(recipes).values()))
    figure.legend(
        [*marks, *picture.lines((picture.MUTED, "--"), (picture.INK, "-"))],
        [*(f"{each}: mean, seeds as crosses" for each in names), "as asked", "best in the data"],
        loc="outside lower center",
        ncols=3,
    )


def _draw_curve(axes: Axes, line: Mapping[str, Any], series: int) -> None:
    colour = picture.SERIES[series % len(picture.SERIES)]
    marker = picture.MARKERS[series % len(picture.MARKERS)]
    axes.plot(line["asked"], line["mean"], color=colour, marker=marker)
    for low_high, target in zip(line["intervals"], line["asked"], strict=True):
        if low_high is not None:
            axes.plot([target, target], low_high, color=colour, linewidth=2)
    for seed in line["seeds"] if len(line["seeds"]) > 1 else ():
        axes.plot(line["asked"], seed, "x", color=colour, markersize=4)


BODIES = {"hopper": 50_000, "walker2d": 50_000, "halfcheetah": 200_000}
EXPERIMENT = Experiment(
    name="return-conditioning",
    title="Asked for a return, and what comes of it",
    question="Does a model get the return it is asked for, within the data and beyond?",
    claim="The achieved return follows the return asked for closely; sometimes beyond the data's best.",
    source="Chen et al. 2021, section 5.2, figure 4",
    published=(
        Published(
            what="desired and achieved return",
            value="highly correlated; on some tasks almost equal",
            where="Chen et al. 2021, section 5.2, figure 4 (curves, no numbers)",
        ),
    ),
    scales={
        "small": Scale(
            minutes=27,
            size="3 bodies x 2 tiers x 3 seeds, 2,000 updates, 12 targets",
            settings={"bodies": BODIES, "updates": 2000, "episodes": 3},
        ),
        "paper": Scale(
            minutes=24 * 60,
            size="the same with 100,000 updates, a million steps of data, 10 episodes",
            settings={
                "bodies": dict.fromkeys(BODIES, 1_000_000),
                "updates": 100_000,
                "episodes": 10,
            },
        ),
        "debug": Scale(
            minutes=0.5,
            size="one body, 20 updates",
            seeds=1,
            settings={"bodies": {"hopper": 400}, "updates": 20, "episodes": 1},
        ),
    },
    algorithms=("decision_transformer/locomotion",),
    refuses=refuses,
    run=run,
    draw=draw,
    alt="Achieved over asked return for each dataset, above the histogram of the data's returns.",
    figure_size=(10.0, 13.0),
)
