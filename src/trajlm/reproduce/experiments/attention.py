"""What do these models look at? The Markovian and the striated pattern, found by a score.

Janner et al. 2021 (arXiv 2106.02039) show two heads of a model of Hopper: in one, states and actions
depend mostly on the transition before; the other is striated, each state dimension depending on itself
at several earlier steps, and actions more on past actions than on past states, as in action smoothing.
How often either occurs they do not say. Here every head of several trainings is scored, of both papers'
models.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import attention_counts as counts
from trajlm.reproduce import attention_maps as maps
from trajlm.reproduce.attention_patterns import CONDITIONED, PATTERNS, PLANNER
from trajlm.reproduce.base import Experiment, Findings, Published, Scale
from trajlm.reproduce.context import Context
from trajlm.reproduce.taking_part import algorithm_title, first_of_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHEAPEST = ("--policy.search", "likelihood", "--policy.horizon", "1", "--policy.beam-width", "1")
"""Of a planner: an episode is acted because every training is scored, not for its score."""


def refuses(recipe: str) -> str | None:
    known = recipe.split("/")[0] in (PLANNER, CONDITIONED)
    return None if known else "what its tokens stand for, if it has any, is not known here"


def run(context: Context) -> Findings:
    settings = context.settings
    data = context.shipped(settings["body"], settings["tier"], steps=settings["steps"])
    cells = {
        recipe: [
            context.cell(
                recipe, recipe=recipe, data=data, seed=seed, episodes=1,
                steps=settings["updates"][name_of(recipe)],
                extra=(
                    *(CHEAPEST if name_of(recipe) == PLANNER else ()),
                    *settings["flags"].get(name_of(recipe), ()),
                ),
            )
            for seed in context.seeds
        ]
        for recipe in context.algorithms
    }  # fmt: skip
    context.train([cell for each in cells.values() for cell in each])
    readings = {
        recipe: [
            context.part(
                f"attention-{cell.name}",
                partial(
                    maps.read,
                    context.run_of(cell),
                    algorithm=name_of(recipe),
                    windows=settings["windows"],
                    shown=settings["shown"][name_of(recipe)],
                ),
            )
            for cell in each
        ]
        for recipe, each in cells.items()
    }
    return findings(context, readings)


def name_of(recipe: str) -> str:
    return recipe.split("/")[0]


def findings(context: Context, readings: counts.Readings) -> Findings:
    rows = [
        counts.row_of(recipe, each, pattern, layer)
        for recipe, each in readings.items()
        for pattern in PATTERNS
        for layer in (None, *sorted({head["layer"] for head in each[0]["heads"]}))
    ]
    seeds = len(context.seeds)
    planners = [recipe for recipe in readings if name_of(recipe) == PLANNER]
    always = [
        row
        for row in rows
        if row["recipe"] in planners and row["layer"] is None and min(row["seeds"])
    ]
    return Findings(
        held=context.held(len(always), of=len(PATTERNS) * len(planners)),
        verdict=counts.verdict(readings, rows, seeds=seeds),
        tables=(counts.occurrences(readings, rows, seeds=seeds), counts.scores_table(readings)),
        rows=rows,
        picture={
            # The first recipe of each model is drawn; maps are those of its first seed.
            recipe: [
                {**each, "heads": [without_map(head) if n else head for head in each["heads"]]}
                for n, each in enumerate(readings[recipe])
            ]
            for recipe in first_of_each(list(readings))
        },
    )


def without_map(head: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in head.items() if key != "map"}


# ---- the picture --------------------------------------------------------------------------------


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """For each model its maps, the heads that show a pattern most from near, and all scores."""
    found = results["picture"]
    heights = [3.6 if name_of(recipe) == PLANNER else 2.6 for recipe in found]
    parts = figure.subfigures(len(found), 1, squeeze=False, height_ratios=heights)
    for part, (recipe, readings) in zip(parts.flat, found.items(), strict=True):
        closely = name_of(recipe) == PLANNER
        rows = part.subfigures(
            2 + closely, 1, squeeze=False, height_ratios=[1.15] + [1] * (1 + closely)
        )
        title = f"{algorithm_title(recipe)}: mean attention of every head, training seed 0"
        maps.draw_heads(rows[0, 0], readings[0], title=title)
        if closely:
            for axes, pattern in zip(rows[1, 0].subplots(1, 3), PATTERNS, strict=True):
                maps.draw_closely(axes, readings[0], pattern)
        for axes, pattern in zip(rows[-1, 0].subplots(1, 3), PATTERNS, strict=True):
            maps.draw_scores(axes, readings, pattern)
            axes.set_ylabel("share of attention" if pattern == PATTERNS[0] else "")
        maps.legend(rows[-1, 0], seeds=len(readings))


EXPERIMENT = Experiment(
    name="attention",
    title="What the models look at",
    question="Do heads attend to the transition before, or to the same dimension at earlier steps, and how often?",
    claim=(
        "Some heads are Markovian, states and actions depending mostly on the transition before; others "
        "are striated, a dimension depending on itself at several earlier steps and actions on past "
        "actions."
    ),
    source="Janner et al. 2021, on attention patterns",
    published=(
        Published(
            what="attention patterns of a model of Hopper",
            value="two heads are shown, no number is given",
            where="Janner et al. 2021, the figure of attention patterns",
        ),
    ),
    scales={
        "small": Scale(
            minutes=34,
            size="Hopper, 3 seeds, 5,000 updates (TT), 1,500 (DT)",
            settings={
                "body": "hopper", "tier": "medium-expert", "steps": 100_000, "windows": 256,
                "updates": {PLANNER: 5_000, CONDITIONED: 1_500},
                "flags": {},
                "shown": {PLANNER: 5, CONDITIONED: 10},
            },
        ),
        "paper": Scale(
            minutes=60 * 24,
            size="the same with the published sizes: 4 layers of 4 heads, 20,000 updates of 256 windows",
            seeds=3,
            settings={
                "body": "hopper", "tier": "medium-expert", "steps": 1_000_000, "windows": 1_024,
                "updates": {PLANNER: 20_000, CONDITIONED: 20_000},
                "flags": {
                    PLANNER: [
                        "--model.transitions", "10", "--model.width", "128", "--model.num-layers", "4",
                        "--model.num-heads", "4", "--model.dropout", "0.1", "--training.batch-size",
                        "256", "--training.learning-rate", "6e-4",
                    ],
                },
                "shown": {PLANNER: 5, CONDITIONED: 10},
            },
        ),
        "debug": Scale(
            minutes=0.3,
            size="40 steps of data, 3 updates",
            seeds=1,
            settings={
                "body": "hopper", "tier": "medium", "steps": 40, "windows": 4,
                "updates": {PLANNER: 3, CONDITIONED: 3},
                "flags": {
                    PLANNER: [
                        "--model.transitions", "4", "--model.width", "16", "--model.num-layers", "1",
                    ],
                    CONDITIONED: [
                        "--model.context-length", "6", "--model.width", "16", "--model.num-layers", "1",
                    ],
                },
                "shown": {PLANNER: 3, CONDITIONED: 6},
            },
        ),
    },
    algorithms=(f"{PLANNER}/hopper", f"{CONDITIONED}/small"),
    refuses=refuses,
    run=run,
    draw=draw,
    alt=(
        "Attention maps of every head of both models; the heads that show a pattern most, by dimension; "
        "the score of every head of every seed by layer, beside an even head's and the threshold."
    ),
    figure_size=(11.0, 14.0),
)  # fmt: skip
