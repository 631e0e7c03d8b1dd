"""What a Decision Transformer needs: the good data alone, a long context, a reward at each step?

Chen et al. 2021 (arXiv 2106.01345), the tables of %BC, of context lengths and of delayed reward. Here
on shipped tiers of the bodies, with less data besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.evaluation.scores import bootstrap_interval
from trajlm.reproduce import picture, taking_part
from trajlm.reproduce.base import Experiment, Findings, Published, Scale
from trajlm.reproduce.context import Context
from trajlm.reproduce.score_tables import draw_panels, score_tables
from trajlm.runs.cells import Cell
from trajlm.runs.config import resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES = {
    "imitation": "Imitating all, imitating the best, asking for the best",
    "context": "Steps of context",
    "reward": "Reward at each step, or all of it at the last",
    "data": "Share of the data",
    "planner": "Planning (n=1: one seed, few episodes)",
}
MEASURE = "dataset score (100: expert)"
XLABELS = {
    "imitation": "algorithm",
    "context": "steps",
    "reward": "",
    "data": "share of the episodes",
    "planner": "horizon 5, beam 32",
}
HOLDS = 0.9
"""A score that keeps this share of what it is compared with is said to hold."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One number of a table: a recipe under a condition. None: the scale's, and the recipe's."""

    table: str
    condition: str
    recipe: str
    data: str
    extra: tuple[str, ...] = ()
    seeds: int | None = None
    episodes: int | None = None


def run(context: Context) -> Findings:
    cases = {
        f"{body}, {tier}": list(cases_of(context, body, tier, steps))
        for body, tier, steps in context.settings["data"]
    }
    cells = {
        (name, case): cells_of(context, name, case) for name, each in cases.items() for case in each
    }
    done = context.train([cell for each in cells.values() for cell in each])
    scores = {row["command"]: row["rows"][0]["dataset_score"] for row in done}
    rows = []
    for (name, case), each in cells.items():
        found = [scores[cell.command] for cell in each]
        row: dict[str, Any] = {"dataset": name, "table": case.table, "condition": case.condition}
        row |= {"recipe": case.recipe, "seeds": found, "mean": float(np.mean(found))}
        rows.append({**row, "interval": bootstrap_interval(found)})
    places = list(TABLES)
    rows.sort(key=lambda row: places.index(row["table"]))
    return findings(context, [*rows, *unchanged(rows)])


def unchanged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The unchanged training once more in every table that changes something, under its name there."""
    changed = {(row["dataset"], row["recipe"], row["table"]) for row in rows}
    found = []
    for row in rows:
        if row["table"] != "imitation":
            continue
        names = {"reward": "dense", "data": "all"}
        if taking_part.has_setting(row["recipe"], "model.context_length"):
            names["context"] = str(resolve(row["recipe"]).model.context_length)
        for table, name in names.items():
            if (row["dataset"], row["recipe"], table) in changed:
                found.append({**row, "table": table, "condition": name})
    return found


def cells_of(context: Context, name: str, case: Case) -> list[Cell]:
    """A case's trainings, one a seed."""
    settings = context.settings
    if case.table == "planner":
        steps = settings["planner"]["updates"]
    else:
        steps = taking_part.updates_of(case.recipe, settings["updates"])
    return [
        context.cell(
            *(name.replace(", ", "-"), case.table, case.condition, case.recipe),
            recipe=case.recipe,
            data=case.data,
            seed=seed,
            targets=("max",),
            steps=steps,
            episodes=case.episodes or settings["episodes"],
            extra=case.extra,
        )
        for seed in context.seeds[: case.seeds]
    ]


def cases_of(context: Context, body: str, tier: str, steps: int) -> Iterator[Case]:
    """Every table's cases on one dataset. Of several recipes of an algorithm the first one stands
    for it in all tables but `imitation`; the case without a change stands there alone."""
    settings, data = context.settings, context.shipped(body, tier, steps=steps)
    # The longest training first, so that no worker waits for it at the end.
    planner = settings["planner"]
    yield Case(
        table="planner", condition="n=1", recipe=planner["recipe"].format(body=body), data=data,
        extra=tuple(planner["flags"]), seeds=1, episodes=planner["episodes"],
    )  # fmt: skip
    for recipe in context.algorithms:
        yield Case(table="imitation", condition="as it is", recipe=recipe, data=data)
    for recipe in taking_part.first_of_each(context.algorithms):
        plain = partial(Case, recipe=recipe, data=data)
        if taking_part.has_setting(recipe, "model.context_length"):
            for length in map(str, settings["contexts"]):
                flags = ("--model.context-length", length)
                yield plain(table="context", condition=length, extra=flags)
        flags = ("--data.reward", "delayed")
        yield plain(table="reward", condition="delayed", extra=flags)
        for share in settings["shares"]:
            less = context.shipped(body, tier, steps=steps // share, part=f"share-{share}")
            yield Case(table="data", condition=f"1/{share}", recipe=recipe, data=less)


def findings(context: Context, rows: Sequence[Mapping[str, Any]]) -> Findings:
    checks = list(checks_of(rows))
    shown = "; ".join(f"{words}: {'yes' if held else 'no'}" for words, held in checks)
    planner = context.settings["planner"]
    note = (
        f"dataset score (0: random, 100: expert), mean of {len(context.seeds)} seeds with its 95% "
        f"interval; {context.settings['episodes']} episodes a seed, of the planner {planner['episodes']}"
    )
    return Findings(
        held=context.held(sum(held for _, held in checks), of=len(checks)),
        verdict=(shown or "nothing that the claim is about took part") + ".",
        tables=score_tables(rows, titles=TABLES, note=note),
        rows=rows,
    )


def checks_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """What the paper says of a model that is asked for a return, on each dataset."""
    told = picture.mean_and_interval
    found = {(r["dataset"], r["table"], r["condition"], r["recipe"]): r for r in rows}
    for (name, table, condition, recipe), row in found.items():
        plain = found.get((name, "imitation", "as it is", recipe))
        if plain is None or not taking_part.takes_target(recipe):
            continue
        cloned = found.get((name, "imitation", "as it is", "behavior_cloning/small"))
        words = f"{taking_part.algorithm_title(recipe)} on {name}: {told(row)}"
        if table == "imitation" and cloned is not None:
            yield (
                f"{words} against {told(cloned)} of cloning all data",
                row["mean"] > cloned["mean"],
            )
        if condition == "delayed":
            yield (
                f"{words} with delayed reward against {told(plain)}, {HOLDS:.0%} of it or more",
                row["mean"] >= HOLDS * plain["mean"],
            )
        longest = found.get((name, "context", "20", recipe))
        if table == "context" and condition == "1" and longest is not None:
            yield (
                f"{words} with a context of 1 against {told(longest)} with 20",
                row["mean"] < longest["mean"],
            )


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    draw_panels(figure, results["rows"], titles=TABLES, xlabels=XLABELS, measure=MEASURE)


PLANNER = {
    "recipe": "trajectory_transformer/{body}",
    "flags": ["--policy.horizon", "5", "--policy.beam-width", "32"],
    "episodes": 5,
    "updates": 16_000,
}
EXPERIMENT = Experiment(
    name="credit-and-data",
    title="What a model needs of its data",
    question="Is asking for the best more than imitating the best; are context and dense reward needed?",
    claim=(
        "Asked for the best return, a Decision Transformer is far above cloning all data and near "
        "cloning the best of it, needs more than one step of context, and loses little where the "
        "reward comes all at the end."
    ),
    source="Chen et al. 2021, tables of %BC, context and delayed reward; Janner et al. 2021, table 1",
    published=(
        Published(
            what="hopper, medium-replay: DT / 10%BC / 25%BC / 40%BC / 100%BC",
            value="82.7 / 70.6 / 58.6 / 31.0 / 27.6",
            where="Chen et al. 2021, table of %BC (D4RL score)",
        ),
        Published(
            what="hopper, medium-replay, DT with delayed and with dense reward",
            value="78.5 / 82.7",
            where="Chen et al. 2021, table of delayed reward (D4RL score)",
        ),
        Published(
            what="Breakout, DT with context 1 and 30",
            value="73.9 / 267.5",
            where="Chen et al. 2021, table of context lengths (gamer-normalised score)",
        ),
        Published(
            what="hopper, medium-replay, Trajectory Transformer",
            value="91.5",
            where="Janner et al. 2021, table 1 (D4RL score)",
        ),
    ),
    scales={
        "small": Scale(
            minutes=50,
            size="hopper/replay, 3 seeds, 2,000 updates (DT), 1,200 (others); planner n=1, 4,000",
            settings={
                "data": [["hopper", "replay", 50_000]],
                "updates": {"decision_transformer": 2000, "other": 1200},
                "episodes": 10,
                "contexts": [1, 20],
                "shares": [2, 10],
                "planner": {**PLANNER, "updates": 4000},
            },
        ),
        "paper": Scale(
            minutes=200 * 60,
            size="3 bodies x 2 tiers, 3 seeds, 100,000 updates; Trajectory Transformer n=1",
            settings={
                "data": [
                    [body, tier, 1_000_000]
                    for body in ("hopper", "walker2d", "halfcheetah")
                    for tier in ("replay", "medium-expert")
                ],
                "updates": {"other": 100_000},
                "episodes": 100,
                "contexts": [1, 20],
                "shares": [2, 10],
                "planner": PLANNER,
            },
        ),
        "debug": Scale(
            minutes=1,
            size="hopper/replay, 1 seed, 4 updates",
            seeds=1,
            settings={
                "data": [["hopper", "replay", 800]],
                "updates": {"other": 4},
                "episodes": 1,
                "contexts": [1],
                "shares": [2],
                "planner": {
                    "recipe": "trajectory_transformer/debug",
                    "flags": [],
                    "episodes": 1,
                    "updates": 4,
                },
            },
        ),
    },
    algorithms=(
        "decision_transformer/locomotion",
        "behavior_cloning/small",
        *(
            f"percent_behavior_cloning/{share}"
            for share in ("ten", "twenty-five", "forty", "hundred")
        ),
    ),
    run=run,
    draw=draw,
    alt="Dataset scores by algorithm, by context, by reward and by share of the data.",
    figure_size=(13.0, 6.5),
    version=2,
)
