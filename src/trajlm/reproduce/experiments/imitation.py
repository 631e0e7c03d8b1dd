"""Does the likeliest plan imitate? Unmodified beam search on an expert's data, replanned at every step.

Janner et al. 2021 (arXiv 2106.02039), on imitation learning: beam search by likelihood alone, in a
model of an expert's data, returns 104% (Hopper) and 109% (Walker2d) of the expert. HalfCheetah is not
reported. Here all three, on the shipped `expert` tiers: one model each, acted by search, by its
likeliest token at a time, and by drawing each token; beside behaviour cloning of the same data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from trajlm.reproduce import imitation_ways as ways
from trajlm.reproduce import picture
from trajlm.reproduce.base import Experiment, Findings, Published, Scale
from trajlm.reproduce.context import Context
from trajlm.reproduce.data_returns import behaviour_of
from trajlm.reproduce.imitation_ceiling import ceiling
from trajlm.reproduce.imitation_pictures import draw
from trajlm.reproduce.imitation_ways import GREEDY, PUBLISHED, SAMPLING, SEARCH, WAYS
from trajlm.reproduce.taking_part import titles, updates_of
from trajlm.runs.cells import Cell, Row

TIER = "expert"
PLANNER = "trajectory_transformer"
AS_MANY = 5
"""Episodes of the behaviour in bins for one of a search, which costs far more."""
IMITATES = 95.0
"""Percent of the behaviour's return from which on a method is said to imitate."""


def run(context: Context) -> Findings:
    settings = context.settings
    data = {
        body: context.shipped(body, TIER, steps=steps) for body, steps in settings["bodies"].items()
    }
    behaviours, cells, further = {}, {}, {}
    for body, path in data.items():
        behaviours[body] = context.part(f"behaviour-{body}", partial(behaviour_of, path))
        for recipe in context.algorithms:
            for seed in context.seeds:
                trained = training(context, recipe, body, data=path, seed=seed)
                cells[recipe, body, seed] = trained
                for way, policy in further_ways(context, recipe).items():
                    further[recipe, body, seed, way] = context.evaluation(
                        way, of=trained, episodes=settings["episodes"][way], policy=policy
                    )
    own = by_command(context.train(list(cells.values())))
    more = by_command(context.evaluate(list(further.values())))
    found: dict[tuple[str, str, str], list[Row]] = {}
    for (recipe, body, _), cell in cells.items():
        way = GREEDY if plans(recipe) else ""
        found.setdefault((recipe, body, way), []).append(own[cell.command])
    for (recipe, body, _, way), cell in further.items():
        found.setdefault((recipe, body, way), []).append(more[cell.command])
    if planner := next(filter(plans, context.algorithms), None):
        for body, path in data.items():
            own_bins = ceiling_of(context, cells[planner, body, 0], path, body, behaviours[body])
            behaviours[body]["in_bins"] = own_bins
    names = titles(context.algorithms)
    rows = [
        ways.row_of(
            recipe, body, way, each, behaviours[body], name=names[recipe],
            alone=context.part(
                f"alone-{cells[recipe, body, 0].name}-{way or 'own'}",
                partial(
                    ways.alone, context.run_of(cells[recipe, body, 0]), policy_of(context, way),
                    seconds=settings["timed_seconds"],
                ),
            ),
        )
        for (recipe, body, way), each in found.items()
    ]  # fmt: skip
    return findings(context, rows, behaviours)


def ceiling_of(
    context: Context, cell: Cell, data: str, body: str, behaviour: Mapping[str, Any]
) -> Any:
    """What the behaviour returns in the bins of a training's model."""
    episodes = AS_MANY * context.settings["episodes"][SEARCH]
    return context.part(
        f"ceiling-{body}",
        partial(
            ceiling, context.run_of(cell), data, body=body, behaviour=TIER, episodes=episodes,
            mean=behaviour["mean"],
        ),
    )  # fmt: skip


def plans(recipe: str) -> bool:
    return recipe.split("/")[0] == PLANNER


def by_command(rows: Sequence[Row]) -> dict[str, Row]:
    return {row["command"]: row for row in rows}


def training(context: Context, recipe: str, body: str, *, data: str, seed: int) -> Cell:
    """A training; a planner's own evaluation is its greedy way."""
    settings = context.settings
    greedy = {
        f"--policy.{key.replace('_', '-')}": str(value) for key, value in WAYS[GREEDY].items()
    }
    return context.cell(
        *(recipe, body), recipe=recipe, data=data, seed=seed, targets=("expert",),
        steps=updates_of(recipe, settings["updates"]),
        episodes=settings["episodes"][GREEDY],
        extra=tuple(word for pair in greedy.items() for word in pair) if plans(recipe) else (),
    )  # fmt: skip


def further_ways(context: Context, recipe: str) -> dict[str, Mapping[str, Any]]:
    """How else a recipe's model acts: a planner by drawing, and by each search of the scale."""
    if not plans(recipe):
        return {}
    return {SAMPLING: WAYS[SAMPLING], **context.settings["searches"]}


def policy_of(context: Context, way: str) -> Mapping[str, Any]:
    known: dict[str, Mapping[str, Any]] = {**WAYS, **context.settings["searches"]}
    return known.get(way, {})


# ---- findings -----------------------------------------------------------------------------------


def findings(
    context: Context, rows: Sequence[Mapping[str, Any]], behaviours: Mapping[str, Any]
) -> Findings:
    searched = {row["body"]: row for row in best_searches(rows)}
    published = [row for body, row in searched.items() if body in PUBLISHED]
    holding = [row for row in published if row["mean"] >= IMITATES]
    return Findings(
        held=context.held(len(holding), of=len(published)),
        verdict=verdict(rows, searched, behaviours),
        tables=(
            ways.shares_table(rows, behaviours, seeds=len(context.seeds)),
            ways.costs_table(rows, behaviours),
        ),
        rows=rows,
        picture={"behaviours": dict(behaviours)},
    )


def best_searches(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each body the row of the first search, which every body has."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["way"].startswith(SEARCH):
            found.setdefault(row["body"], row)
    return list(found.values())


def verdict(
    rows: Sequence[Mapping[str, Any]],
    searched: Mapping[str, Mapping[str, Any]],
    behaviours: Mapping[str, Any],
) -> str:
    if not searched:
        return "No planner took part."
    told = "; ".join(f"{body} {picture.mean_and_interval(row)}" for body, row in searched.items())
    return (
        f"By unmodified beam search, in percent of the behaviour's return: {told} (published: Hopper "
        f"104, Walker2d 109).{possible(behaviours)} {taken(rows, searched)}"
    )


def possible(behaviours: Mapping[str, Any]) -> str:
    """What the bins leave to a model, so that what is missing is its learning's."""
    found = {body: each["in_bins"] for body, each in behaviours.items() if "in_bins" in each}
    if not found:
        return ""
    shares = ", ".join(f"{body} {each['share']:.0f}" for body, each in found.items())
    return f" The behaviour itself, seeing and acting in the same bins, returns {shares}."


def taken(rows: Sequence[Mapping[str, Any]], searched: Mapping[str, Mapping[str, Any]]) -> str:
    """What a reader should take from it: search beside acting without it, and what it costs."""
    greedy = {(row["recipe"], row["body"]): row for row in rows if row["way"] == GREEDY}
    pairs = [(row, greedy[row["recipe"], row["body"]]) for row in searched.values()]
    ahead = [row for row, other in pairs if _apart(row, other) and row["mean"] > other["mean"]]
    behind = [row for row, other in pairs if _apart(row, other) and row["mean"] < other["mean"]]
    times = [row["milliseconds"] / other["milliseconds"] for row, other in pairs]
    return (
        f"What to take from it: searching wider than one beam returned more than the likeliest tokens "
        f"on {len(ahead)} of {len(pairs)} bodies and less on {len(behind)}, where intervals are apart, "
        f"for {min(times):.0f} to {max(times):.0f} times the time of a plan."
    )


def _apart(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows have intervals that do not meet."""
    low, high = sorted((row, other), key=lambda each: float(each["mean"]))
    return bool(low["interval"] and high["interval"] and low["interval"][1] < high["interval"][0])


EXPERIMENT = Experiment(
    name="imitation",
    title="Imitation by beam search",
    question="Does the likeliest plan of a model of expert data return what the expert does?",
    claim="Unmodified beam search on expert data, replanned at every step, returns as much as the expert.",
    source="Janner et al. 2021, on imitation learning",
    published=tuple(
        Published(
            what=f"return of beam search on expert data, {body}",
            value=f"{share:.0f}% of the expert",
            where="Janner et al. 2021, on imitation learning, 15 runs",
        )
        for body, share in PUBLISHED.items()
    ),
    scales={
        "small": Scale(
            minutes=85,
            size="3 bodies, one seed, 20,000 updates, 10 episodes of search",
            seeds=1,
            settings={
                "bodies": {"hopper": 400_000, "walker2d": 400_000, "halfcheetah": 400_000},
                "updates": {PLANNER: 20_000, "other": 5_000},
                "episodes": {GREEDY: 10, SAMPLING: 10, SEARCH: 10},
                "searches": {SEARCH: {"search": "likelihood", "beam_width": 8, "horizon": 2}},
                "timed_seconds": 5.0,
            },
        ),
        "paper": Scale(
            minutes=60 * 24 * 3,
            size="5 seeds, a million steps of data, 40,000 updates, beam 128 and horizon 15",
            seeds=5,
            settings={
                "bodies": {"hopper": 1_000_000, "walker2d": 1_000_000, "halfcheetah": 1_000_000},
                "updates": {PLANNER: 40_000, "other": 25_000},
                "episodes": {GREEDY: 16, SAMPLING: 16, SEARCH: 16},
                "searches": {
                    SEARCH: {
                        "search": "likelihood", "beam_width": 128, "horizon": 15,
                        "window": "published",
                    }
                },
                "timed_seconds": 20.0,
            },
        ),
        "debug": Scale(
            minutes=0.5,
            size="Hopper, one seed, 3 updates, 2 episodes",
            seeds=1,
            settings={
                "bodies": {"hopper": 100},
                "updates": {PLANNER: 3, "other": 3},
                "episodes": {GREEDY: 2, SAMPLING: 2, SEARCH: 2},
                "searches": {SEARCH: {"search": "likelihood", "beam_width": 2, "horizon": 2}},
                "timed_seconds": 0.05,
            },
        ),
    },
    algorithms=(f"{PLANNER}/imitation", "behavior_cloning/small"),
    run=run,
    draw=draw,
    alt=(
        "For each body the return of beam search, of greedy and drawn tokens and of behaviour cloning in "
        "percent of the behaviour's, with intervals and seeds; below, milliseconds an action."
    ),
    figure_size=(11.0, 6.5),
)  # fmt: skip
