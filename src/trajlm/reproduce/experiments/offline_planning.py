"""Does planning by predicted rewards return what the data do, and more than cloning them?

Janner et al. 2021 (arXiv 2106.02039), table 1, on offline reinforcement learning: beam search by
predicted reward and value, on D4RL's locomotion datasets, is above cloning on all of them and near the
better of two behaviours on mixed data. Here on the shipped `medium` and `medium-expert`, in returns, so
that the data's own mean stands beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trajlm.evaluation.scores import mean, stratified_bootstrap
from trajlm.reproduce import published_scores, taking_part
from trajlm.reproduce.base import Experiment, Findings, Published, Scale, Table
from trajlm.reproduce.context import Context
from trajlm.reproduce.data_returns import behaviour_of
from trajlm.reproduce.return_pictures import draw_returns
from trajlm.reproduce.score_matrix import Task, cost_table, row_of
from trajlm.reproduce.selection import in_turn
from trajlm.runs.cells import Cell

PLANNER, CLONING = "trajectory_transformer", "behavior_cloning"


def cells(context: Context) -> list[Cell]:
    return in_turn(plan(context).values())


def plan(context: Context) -> dict[tuple[Task, str], list[Cell]]:
    """Every training by task and recipe, one a seed."""
    return {
        (task, recipe): [training(context, task, recipe, seed=seed) for seed in context.seeds]
        for task in tasks(context)
        for recipe in context.algorithms
    }


def tasks(context: Context) -> list[Task]:
    return [
        Task(
            name=f"{body}/{tier}",
            data=context.promised(body, tier, steps=steps),
            body=body,
            measure="return_mean",
        )
        for body, tier, steps in context.settings["data"]
    ]


def training(context: Context, task: Task, recipe: str, *, seed: int) -> Cell:
    """`settings` say things by algorithm, some of them by dataset."""
    updates = taking_part.updates_of(recipe, context.settings["updates"])
    return context.cell(
        *(task.name, recipe),
        recipe=recipe,
        data=task.data,
        seed=seed,
        steps=by_dataset(updates, task, None),
        episodes=taking_part.updates_of(recipe, context.settings["episodes"]),
        targets=("max",),
        extra=tuple(
            by_dataset(taking_part.updates_of(recipe, context.settings["flags"]), task, ())
        ),
    )


def by_dataset(setting: Any, task: Task, usual: Any) -> Any:
    """A setting, or that of a dataset where it depends on it."""
    return setting.get(task.name, usual) if isinstance(setting, Mapping) else setting


# ---- findings -----------------------------------------------------------------------------------


def run(context: Context) -> Findings:
    planned = plan(context)
    done = context.train(in_turn(planned.values()))
    found = {row["command"]: row for row in done}
    rows: list[dict[str, Any]] = []
    for (task, recipe), each in planned.items():
        own = [found[cell.command] for cell in each if cell.command in found]
        if own:
            data = behaviour(context, task)
            rows.append({**row_of(task, recipe, own, asked=len(each)), "data_mean": data["mean"]})
    count = sum(map(len, planned.values()))
    return findings(context, [*with_differences(rows)], there=len(done), count=count)


def behaviour(context: Context, task: Task) -> Mapping[str, Any]:
    """What the data's episodes return; they are collected where that is not known yet."""
    sizes = {
        f"{body}/{tier}": (body, tier, steps) for body, tier, steps in context.settings["data"]
    }
    body, tier, steps = sizes[task.name]
    known: Mapping[str, Any] = context.part(
        f"data-{body}-{tier}",
        lambda: behaviour_of(context.shipped(body, tier, steps=steps)),
    )
    return known


def with_differences(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each row with its `difference` to cloning of the same data and the 95% bootstrap interval of
    that over the training seeds of both; None for cloning itself, and where there is none."""
    cloned = {row["dataset"]: row for row in rows if row["recipe"].split("/")[0] == CLONING}
    for row in rows:
        other = cloned.get(row["dataset"])
        if other is None or other is row:
            yield {**row, "difference": None, "difference_interval": None}
            continue
        own, beside = (np.array(each["seeds"])[:, None] for each in (row, other))
        yield {
            **row,
            "difference": row["mean"] - other["mean"],
            "difference_interval": stratified_bootstrap(_difference, own, beside),
        }


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    return mean(first) - mean(second)


def findings(
    context: Context, rows: Sequence[Mapping[str, Any]], *, there: int, count: int
) -> Findings:
    checks = [*checks_of(rows)] if there == count else []
    part = f"A part of the trainings: {there} of {count}. " if there < count else ""
    told = "; ".join(words for words, _ in checks)
    return Findings(
        held=context.held(sum(held for _, held in checks), of=len(checks)),
        verdict=f"{part}{told}{'.' if told else ''}".strip(),
        tables=(
            returns_table(rows, note=part),
            cost_table(rows),
        ),
        rows=rows,
        picture={"there": there, "count": count},
    )


def checks_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """By dataset and planner: whether it is at or above the data's mean and above cloning."""
    for row in rows:
        if row["recipe"].split("/")[0] != PLANNER or row["difference"] is None:
            continue
        words = (
            f"{row['dataset']}: {row['mean']:,.0f}, the data {row['data_mean']:,.0f}, "
            f"{signed(row)} beside cloning"
        )
        yield words, row["mean"] >= row["data_mean"] and row["difference"] > 0


def returns_table(rows: Sequence[Mapping[str, Any]], *, note: str) -> Table:
    called = taking_part.titles(list(dict.fromkeys(row["recipe"] for row in rows)))
    lines = [
        (
            row["dataset"],
            f"{row['data_mean']:,.0f}",
            called[row["recipe"]],
            with_interval(f"{row['mean']:,.0f}", row["interval"]),
            " / ".join(f"{each:,.0f}" for each in row["seeds"]),
            signed(row),
        )
        for row in rows
    ]
    return Table(
        title="Returns",
        columns=("dataset", "its mean", "algorithm", "return", "by seed", "beside cloning"),
        lines=tuple(lines),
        note=(
            f"{note}Mean of the episodes' returns, a mean over training seeds; in brackets 95% bootstrap "
            "intervals over them, of a difference over the seeds of both. Last checkpoint."
        ),
    )


def signed(row: Mapping[str, Any]) -> str:
    """A row's difference with its interval: `+120 [40, 210]`; nothing where there is none."""
    if row["difference"] is None:
        return ""
    return with_interval(f"{row['difference']:+,.0f}", row["difference_interval"])


def with_interval(text: str, interval: Sequence[float] | None) -> str:
    return f"{text} (n=1)" if interval is None else "{} [{:,.0f}, {:,.0f}]".format(text, *interval)


# ---- the experiment -----------------------------------------------------------------------------

DATA = [[body, tier] for body in ("hopper", "halfcheetah") for tier in ("medium", "medium-expert")]
SMALL: Mapping[str, Any] = {
    "data": [[*each, 1_000_000] for each in DATA],
    "updates": {
        PLANNER: {
            "hopper/medium": 10_000,
            "hopper/medium-expert": 10_000,
            "halfcheetah/medium": 4_000,
            "halfcheetah/medium-expert": 24_000,
        },
        "other": 10_000,
    },
    "episodes": {PLANNER: 3, "other": 20},
    # Two behaviours that start alike: the model must tell them apart within few updates.
    "flags": {
        PLANNER: {"halfcheetah/medium-expert": ["--training.early-share", "0.25"]},
        "other": [],
    },
}
PAPER: Mapping[str, Any] = {
    "data": [[*each, 1_000_000] for each in DATA],
    "updates": {PLANNER: 195_000, "other": 100_000},
    "episodes": {PLANNER: 15, "other": 100},
    "flags": {
        PLANNER: [
            *("--model.transitions", "8", "--policy.context", "4"),
            *("--policy.horizon", "5", "--policy.beam-width", "32"),
        ],
        "other": [],
    },
}
DEBUG: Mapping[str, Any] = {
    "data": [["hopper", "medium", 400]],
    "updates": {"other": 4},
    "episodes": {"other": 1},
    "flags": {PLANNER: ["--policy.horizon", "1", "--policy.beam-width", "2"], "other": []},
}

EXPERIMENT = Experiment(
    name="offline-planning",
    title="Planning by predicted rewards",
    question="Does planning by predicted rewards return what the data do, and more than cloning them?",
    claim=(
        "Beam search by predicted reward and value returns at least what the data's episodes do on "
        "average, and more than behaviour cloning."
    ),
    source="Janner et al. 2021, table 1",
    published=tuple(
        Published(
            what=f"D4RL score on {body}-{tier}-v2: BC / Trajectory Transformer",
            value="{} / {}".format(
                published_scores.score(CLONING, published_scores.CORL, f"{body}-{tier}-v2"),
                published_scores.score(PLANNER, published_scores.JANNER, f"{body}-{tier}-v2"),
            ),
            where="Tarasov et al. 2022 (CORL, arXiv 2210.07105); Janner et al. 2021, table 1",
        )
        for body, tier in DATA
    ),
    scales={
        "small": Scale(
            minutes=230,
            size="4 datasets of a million steps, 4,000 to 24,000 updates, 3 episodes of planning",
            seeds=5,
            settings=SMALL,
        ),
        "paper": Scale(
            minutes=60 * 24 * 14,
            size="the same with 195,000 updates, 15 episodes, beam 32",
            seeds=5,
            settings=PAPER,
        ),
        "debug": Scale(minutes=0.5, size="one dataset, 1 seed, 4 updates", seeds=1, settings=DEBUG),
    },
    algorithms=(f"{CLONING}/small", f"{PLANNER}/locomotion"),
    cells=cells,
    run=run,
    draw=draw_returns,
    alt="A panel for each dataset: returns by method with seeds and intervals, and the data's mean as a line.",
    figure_size=(11.0, 5.0),
)
