"""What the mazes are walked by: trainings by maze and recipe, and searches that a critic guides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trajlm.reproduce import taking_part
from trajlm.reproduce.context import Context
from trajlm.runs.cells import Cell

TIER = "waypoints"
Trained = Mapping[tuple[str, str], Sequence[Cell]]
"""A cell a seed, by maze and recipe."""


def trainings(context: Context) -> dict[tuple[str, str], list[Cell]]:
    data = {
        maze: context.promised(maze, TIER, steps=steps)
        for maze, steps in context.settings["mazes"].items()
    }
    return {
        (maze, recipe): [_training(context, recipe, maze, path, seed) for seed in context.seeds]
        for maze, path in data.items()
        for recipe in context.algorithms
    }


def _training(context: Context, recipe: str, maze: str, data: str, seed: int) -> Cell:
    settings = context.settings
    return context.cell(
        *(recipe, maze), recipe=recipe, data=data, seed=seed, targets=("max",),
        steps=taking_part.updates_of(recipe, settings["updates"]),
        episodes=settings["episodes"],
        extra=settings["flags"].get(recipe, ()),
    )  # fmt: skip


def guided_pairs(algorithms: Sequence[str]) -> list[tuple[str, str]]:
    """(planner, critic) of the recipes that take part."""
    return [
        (planner, critic)
        for planner in algorithms
        for critic in algorithms
        if taking_part.takes_guide(planner) and taking_part.offers_critic(critic)
    ]


def guided_searches(
    context: Context, trained: Trained
) -> Iterator[tuple[tuple[str, str, str], list[Cell]]]:
    """(maze, planner, critic) and the evaluations, one a seed, each of the trainings of its seed."""
    for maze in context.settings["mazes"]:
        for planner, critic in guided_pairs(context.algorithms):
            pairs = zip(trained[maze, planner], trained[maze, critic], strict=True)
            yield (
                (maze, planner, critic),
                [
                    context.evaluation(
                        "guided", critic, of=one, episodes=context.settings["episodes"], guide=other
                    )
                    for one, other in pairs
                ],
            )
