"""Algorithms x datasets x seeds on three bodies: the table that offline papers print, made in parts.

Chen et al. 2021 (arXiv 2106.01345), table of D4RL scores; Janner et al. 2021 (arXiv 2106.02039), table
1. Here on the shipped tiers; with `--data`, on D4RL's files or any others, the published scores beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajlm.core.errors import DataError, UsageError
from trajlm.evaluation.scores import body_of
from trajlm.reproduce import picture, published_scores, taking_part
from trajlm.reproduce.base import Experiment, Findings, Published, Scale
from trajlm.reproduce.context import Context
from trajlm.reproduce.locomotion_sizes import (
    ALGORITHMS,
    DEBUG,
    PAPER,
    SMALL,
    cpu_minutes,
    of_body,
)
from trajlm.reproduce.score_matrix import (
    MEASURES,
    Task,
    aggregates,
    cost_table,
    row_of,
    score_table,
)
from trajlm.reproduce.score_pictures import draw_bars
from trajlm.reproduce.selection import in_turn
from trajlm.reproduce.table_files import write_latex, write_markdown
from trajlm.runs.cells import Cell

if TYPE_CHECKING:
    from trajlm.data.store import TrajectoryStore

TARGET = "max"
"""What a model that is asked for a return is asked for: the best one in its data."""
HOLDS = 0.9
"""A score that reaches this share of another is said to be level with it."""
SEQUENCE_MODELS = ("decision_transformer", "trajectory_transformer")
CLONING, RIVAL = "behavior_cloning", "implicit_q_learning"


def cells(context: Context) -> list[Cell]:
    return in_turn(plan(context).values())


def plan(context: Context) -> dict[tuple[Task, str], list[Cell]]:
    """Every training by task and recipe."""
    return {
        (task, recipe): cells_of(context, task, recipe)
        for task in tasks(context)
        for recipe in context.algorithms
    }


def cells_of(context: Context, task: Task, recipe: str) -> list[Cell]:
    """A recipe's trainings on a dataset, one a seed."""
    settings = context.settings
    return [
        context.cell(
            *(task.name, recipe),
            recipe=recipe,
            data=task.data,
            seed=seed,
            steps=of_body(taking_part.updates_of(recipe, settings["updates"]), task.body),
            episodes=taking_part.updates_of(recipe, settings["episodes"]),
            targets=(TARGET,),
            extra=tuple(settings["flags"].get(recipe.split("/")[0], ())),
        )
        for seed in context.seeds[: settings["seeds"].get(recipe.split("/")[0])]
    ]


# ---- data ---------------------------------------------------------------------------------------


def tasks(context: Context) -> list[Task]:
    """The shipped tiers, or the user's own data, which name themselves and their environment.

    Raises `UsageError` for two of one name, `DataError` for data that nothing can be scored on.
    """
    if not context.data:
        return [
            Task(
                name=f"{body}/{tier}",
                data=context.promised(body, tier, steps=steps),
                body=body,
                measure="dataset_score",
            )
            for body, tier, steps in context.settings["data"]
        ]
    found = [given(reference, context.given(reference)) for reference in context.data]
    names = [task.name for task in found]
    for task in found:
        if names.count(task.name) > 1:
            raise UsageError(f"--data: two datasets are called {task.name}")
    return found


def given(reference: str, store: TrajectoryStore) -> Task:
    """A dataset of the user's as a task."""
    from trajlm.runs.scoring import dataset_reference

    assert store.env_id is not None
    body = body_of(store.env_id)
    own = {"ref_min_score", "ref_max_score"} <= set(store.metadata)
    of_d4rl = published_scores.dataset_of(store.name) or store.metadata.get("format") == "d4rl"
    if body is not None and of_d4rl:
        measure = "d4rl_score"
    elif own or dataset_reference(store.env_id) is not None:
        measure = "dataset_score"
    elif body is not None:
        measure = "d4rl_score"
    else:
        raise DataError(
            f"{reference}: no reference returns are known of {store.env_id}, so its scores cannot stand "
            "beside others; write ref_min_score and ref_max_score into a Minari set's metadata"
        )
    return Task(name=store.name, data=reference, body=body or "", measure=measure)


# ---- findings -----------------------------------------------------------------------------------


def run(context: Context) -> Findings:
    planned = plan(context)
    done = context.train(in_turn(planned.values()))
    found = {row["command"]: row for row in done}
    rows = []
    for (task, recipe), each in planned.items():
        own = [found[cell.command] for cell in each if cell.command in found]
        if own:
            rule = TARGET if taking_part.takes_target(recipe) else None
            rows.append({**row_of(task, recipe, own, asked=len(each)), "target_rule": rule})
    count = sum(map(len, planned.values()))
    return findings(context, rows, there=len(done), count=count)


def findings(
    context: Context, rows: Sequence[Mapping[str, Any]], *, there: int, count: int
) -> Findings:
    over = aggregates(rows)
    checks = list(checks_of(over)) if there == count else []
    part = f"A part of the table: {there} of {count} trainings. " if there < count else ""
    called = taking_part.titles(context.algorithms)
    means = ", ".join(
        f"{called[each['recipe']]} {picture.mean_and_interval({**each, 'mean': each['value']})}"
        for each in over
        if each["statistic"] == "IQM"
    )
    claims = "; ".join(words for words, _ in checks)
    told = ""
    if over:
        told = f"IQM over {len(over[0]['datasets'])} datasets: {means}. "
    elif there == count:
        each_score = (f"{r['dataset']}, {called[r['recipe']]} {r['mean']:.1f}" for r in rows)
        told = f"No statistic over datasets: {'; '.join(each_score)}. "
    measures = " or ".join(MEASURES[name] for name in dict.fromkeys(r["measure"] for r in rows))
    return Findings(
        held=context.held(sum(held for _, held in checks), of=len(checks)),
        verdict=f"{part}{told}{claims}{'.' if claims else ''}".strip(),
        tables=(
            score_table(
                rows,
                over,
                title="Scores by dataset",
                note=(
                    f"{part}{measures}, a mean over n training seeds with its 95% bootstrap interval, for "
                    "which three seeds are few. Last checkpoint, asked for the best return in its data "
                    "where a return is asked for. IQM and its interval as by Agarwal et al. 2021."
                ),
            ),
            cost_table(rows),
        ),
        rows=rows,
        picture={"aggregates": over, "there": there, "count": count},
    )


def checks_of(over: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """What the papers say of sequence models, on the IQM over all datasets."""
    found = {each["recipe"]: each["value"] for each in over if each["statistic"] == "IQM"}
    best: dict[str, float] = {}
    for recipe, value in found.items():
        name = recipe.split("/")[0]
        best[name] = max(value, best.get(name, value))
    for name in SEQUENCE_MODELS:
        title = taking_part.algorithm_title(name)
        if name in best and CLONING in best:
            words = f"{title} {best[name]:.1f} against {best[CLONING]:.1f} of cloning all data"
            yield words, best[name] > best[CLONING]
        if name in best and RIVAL in best:
            words = (
                f"{title} {best[name]:.1f} against {best[RIVAL]:.1f} of IQL, {HOLDS:.0%} or more"
            )
            yield words, best[name] >= HOLDS * best[RIVAL]


EXPERIMENT = Experiment(
    name="locomotion-table",
    title="Methods and datasets of three bodies",
    question="What do cloning, sequence models and offline reinforcement learning make of the same data?",
    claim=(
        "Asked for the best return, or planning, a sequence model is above cloning all data and level "
        "with offline reinforcement learning."
    ),
    source="Chen et al. 2021, section 4.2; Janner et al. 2021, table 1",
    published=(
        Published(
            what="mean of nine D4RL datasets: BC / 10%BC / DT / IQL",
            value="50.4 / 69.3 / 73.8 / 81.6",
            where="Tarasov et al. 2022 (CORL, arXiv 2210.07105), the project's table of last scores",
        ),
        Published(
            what="mean of nine D4RL datasets: Trajectory Transformer / DT",
            value="78.9 / 74.7",
            where="Janner et al. 2021, table 1",
        ),
    ),
    scales={
        "small": Scale(
            minutes=round(cpu_minutes(SMALL, 3) / 2),
            size="9 datasets of 200,000 steps; 5,000 updates, IQL 10,000; planner n=1, 3,400 or 9,000",
            settings=SMALL,
        ),
        "paper": Scale(
            minutes=round(cpu_minutes(PAPER, 3) / 2),
            size="the same with a million steps of data and 100,000 updates, IQL a million",
            settings=PAPER,
        ),
        "debug": Scale(minutes=1, size="one dataset, 1 seed, 4 updates", seeds=1, settings=DEBUG),
    },
    algorithms=ALGORITHMS,
    cells=cells,
    takes_data=True,
    run=run,
    draw=draw_bars,
    alt="Interquartile means over all datasets, and a panel of scores for each dataset, by method.",
    further={"table.md": write_markdown, "table.tex": write_latex},
    figure_size=(13.0, 8.0),
)
