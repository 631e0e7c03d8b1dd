"""What the mazes' rows say: names, the table, and whether the guided search beat both of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trajlm.reproduce import maze_ways as ways
from trajlm.reproduce import taking_part
from trajlm.reproduce.base import Findings, Table
from trajlm.reproduce.context import Context
from trajlm.runs.config import resolve

Rows = Sequence[Mapping[str, Any]]
TITLES = {
    "pointmaze-umaze": "UMaze",
    "pointmaze-medium": "Medium",
    "pointmaze-large": "Large",
}


def name_of(row: Mapping[str, Any], algorithms: Sequence[str]) -> str:
    """What tables and pictures call a row."""
    asked = {each for each in algorithms if asks_for_goals(each)}
    names = taking_part.titles([each for each in algorithms if each not in asked])
    names |= {each: f"{taking_part.algorithm_title(each)}, asked for the goal" for each in asked}
    if row["recipe"] == ways.TRUE_MAZE:
        return f"plans of {row['horizon']} in the {ways.TRUE_MAZE}, {names[row['guide']]}'s critic"
    name = names.get(row["recipe"], row["recipe"])
    return f"{name}, guided by {names[row['guide']]}" if row["guide"] else name


def asks_for_goals(recipe: str) -> bool:
    """Whether the recipe's model is asked for a goal, beside what it observes."""
    return getattr(resolve(recipe).model, "goal", "none") != "none"


def findings(
    context: Context, rows: Rows, drawn: Mapping[str, Any], *, there: int, count: int
) -> Findings:
    held, words = [], []
    for maze in drawn:
        own = [row for row in rows if row["maze"] == maze]
        inside = {
            (r["recipe"], r["guide"]): r["success"] for r in own if r["recipe"] != ways.TRUE_MAZE
        }
        for (recipe, guide), success in inside.items():
            if guide is not None and {(recipe, None), (guide, None)} <= set(inside):
                parts = inside[recipe, None], inside[guide, None]
                held.append(success > max(parts))
                words.append(
                    f"{TITLES[maze]} {100 * success:.0f}% (search alone {100 * parts[0]:.0f}%, "
                    f"critic's own policy {100 * parts[1]:.0f}%{in_truth(own, guide)})"
                )
    verdict = (
        "The guided search reached of the goals: " + "; ".join(words) + "." + lacking(rows)
        if words
        else "No search and critic took part, so nothing was guided."
    )
    whole = there == count
    part = "" if whole else f"A part of the whole: {there} of {count} trainings and searches. "
    return Findings(
        held=context.held(sum(held), of=len(held) if whole else 0),
        verdict=f"{part}{verdict}",
        tables=(table(rows, drawn),) if rows else (),
        rows=rows,
        picture=dict(drawn),
    )


def lacking(rows: Rows) -> str:
    """What a reader should take from it: where the critic, with true states, is worth more than its own
    policy is, the critic is not what a guided search lacks."""
    own = {(r["maze"], r["recipe"]): r["success"] for r in rows if r["guide"] is None}
    deepest = {(r["maze"], r["guide"]): r for r in rows if r["recipe"] == ways.TRUE_MAZE}
    found = [
        f"{TITLES[maze]} ({100 * row['success']:.0f}%, plans of {row['horizon']})"
        for (maze, critic), row in deepest.items()
        if row["success"] > own[maze, critic]
    ]
    if not found:
        return ""
    return (
        " What to take from it: with true states plans scored by the critic reach more goals than its "
        f"own policy on {', '.join(found)}, so the critic is not the limit there: what is left are the "
        "states that the model predicts and the actions that it proposes."
    )


def in_truth(rows: Rows, guide: str) -> str:
    """What the critic is worth where the states of plans are true ones, as words to add."""
    found = [
        f"{100 * row['success']:.0f}% with plans of {row['horizon']}"
        for row in rows
        if row["recipe"] == ways.TRUE_MAZE and row["guide"] == guide
    ]
    return f", the critic in the {ways.TRUE_MAZE} {', '.join(found)}" if found else ""


def table(rows: Rows, drawn: Mapping[str, Any]) -> Table:
    names = list(dict.fromkeys(row["name"] for row in rows))
    cells = {(row["name"], row["maze"]): share(row) for row in rows}
    scored = [row for row in rows if row["recipe"] != ways.DATA]
    kinds = " or ".join(dict.fromkeys(row["interval_kind"] for row in scored))
    seeds = " to ".join(map(str, sorted({len(row["seeds"]) for row in scored})))
    steps = ", ".join(f"{TITLES[maze]} {each['steps']:,}" for maze, each in drawn.items())
    return Table(
        title="Goals reached, percent of episodes",
        columns=("method", *(TITLES[maze] for maze in drawn)),
        lines=tuple((name, *(cells.get((name, maze), "-") for maze in drawn)) for name in names),
        note=(
            f"{scored[0]['episodes']} episodes for each training; in brackets: {kinds}, training "
            f"seeds: {seeds}. Steps of data: {steps}"
        ),
    )


def share(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['success']:.1f} [{100 * low:.0f}, {100 * high:.0f}]"
