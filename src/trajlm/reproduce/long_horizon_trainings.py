"""What long-horizon's models learn from and how they are trained: what is seen, and with what history."""

from __future__ import annotations

from typing import Any

from trajlm.reproduce.context import Context
from trajlm.reproduce.long_horizon_findings import HIDDEN, WHOLE
from trajlm.reproduce.taking_part import has_setting, updates_of
from trajlm.runs.cells import Cell

POSITIONS = {"hopper": 5, "walker2d": 8, "humanoid": 22}
"""Entries of an observation before the velocities."""
HISTORY, MARKOVIAN, FREE = "history", "markovian", "free"
TRUTH_SEED = 7_000


def settings_of(context: Context, body: str) -> dict[str, Any]:
    """The scale's settings with what differs for a body."""
    return {**context.settings, **context.settings["bodies"][body]}


def datasets(context: Context, body: str) -> tuple[str, str]:
    """What models learn from, and fresh episodes of the same behaviours."""
    from trajlm.collect.collector import collect, dataset_id

    settings = settings_of(context, body)
    tier, asked = settings["tier"], settings["truth_steps"]
    train = context.shipped(body, tier, steps=settings["steps"])
    truth = context.dataset(
        f"truth/{dataset_id(body, tier)}",
        lambda root: collect(body, tier, steps=asked, seed=TRUTH_SEED, root=root / "truth"),
    )
    return train, truth


def cells_of(context: Context, body: str, data: str) -> dict[tuple[str, str, str], list[Cell]]:
    """The trainings by recipe, what is seen and whether history is: a cell a seed, unscored."""
    settings = settings_of(context, body)
    wanted: dict[tuple[str, str, str], tuple[int, dict[str, int]]] = {}
    for recipe in context.algorithms:
        updates = updates_of(recipe, settings["updates"])
        for seen, history in settings["variants"]:
            needed = {"observation_size": POSITIONS[body]} if seen == HIDDEN else {}
            needed |= {"transitions": 2} if history == MARKOVIAN else {}
            if not all(has_setting(recipe, f"model.{name}") for name in needed):
                continue
            if settings["transitions"] and has_setting(recipe, "model.transitions"):
                needed.setdefault("transitions", settings["transitions"])
            wanted[recipe, seen, history] = (updates[history], needed)
    clone = settings["clone"]
    wanted[clone["recipe"], WHOLE, FREE] = (clone["updates"], {})
    return {
        (recipe, seen, history): [
            context.cell(
                *(body, recipe, seen, history), recipe=recipe, data=data, seed=seed, steps=updates,
                episodes=0,
                extra=[
                    word
                    for name, value in model.items()
                    for word in (f"--model.{name.replace('_', '-')}", str(value))
                ],
            )
            for seed in context.seeds
        ]
        for (recipe, seen, history), (updates, model) in wanted.items()
    }  # fmt: skip
