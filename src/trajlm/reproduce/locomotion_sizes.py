"""How large the table of methods and datasets is made, and what it takes of a core, by estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajlm.reproduce import taking_part

BODIES = ("hopper", "walker2d", "halfcheetah")
TIERS = ("medium", "replay", "medium-expert")
ALGORITHMS = (
    "behavior_cloning/small",
    "percent_behavior_cloning/ten",
    "decision_transformer/locomotion",
    "implicit_q_learning/locomotion",
    "trajectory_transformer/locomotion",
)
UPDATE_MILLISECONDS: Mapping[str, Any] = {
    "decision_transformer": 60,
    "implicit_q_learning": 28,
    "trajectory_transformer": {"hopper": 74, "other": 185},
    "other": 9,
}
STEP_MILLISECONDS: Mapping[str, Any] = {
    "trajectory_transformer": {"hopper": 40, "other": 72},
    "other": 1,
}
"""What an update, and a step of one episode, take of one of two busy cores (2.5 GHz Xeon, one thread); of
the planner's update half of what was measured of blocks of twice the length."""
START_SECONDS = 20
EPISODE_STEPS = 1000


def of_body(setting: int | Mapping[str, int], body: str) -> int:
    """A number, or that of a body where it depends on it."""
    return setting if isinstance(setting, int) else setting.get(body, setting["other"])


def cell_seconds(settings: Mapping[str, Any], recipe: str, body: str) -> float:
    """What a training takes with its evaluation, by estimate."""

    def of(name: Mapping[str, Any]) -> int:
        return of_body(taking_part.updates_of(recipe, name), body)

    acting = of(settings["episodes"]) * EPISODE_STEPS * of(STEP_MILLISECONDS)
    return START_SECONDS + (of(settings["updates"]) * of(UPDATE_MILLISECONDS) + acting) / 1000


def cpu_minutes(settings: Mapping[str, Any], seeds: int) -> float:
    """What a table takes of one core, by estimate."""
    return sum(
        cell_seconds(settings, recipe, body)
        * len(range(seeds)[: settings["seeds"].get(recipe.split("/")[0])])
        / 60
        for body, _, _ in settings["data"]
        for recipe in ALGORITHMS
    )


SMALL: Mapping[str, Any] = {
    "data": [[body, tier, 200_000] for body in BODIES for tier in TIERS],
    "updates": {
        "implicit_q_learning": 10_000,
        "trajectory_transformer": {"hopper": 9000, "other": 3400},
        "other": 5000,
    },
    "episodes": {"trajectory_transformer": 3, "other": 20},
    "seeds": {"trajectory_transformer": 1},
    "flags": {},
}
PAPER: Mapping[str, Any] = {
    "data": [[body, tier, 1_000_000] for body in BODIES for tier in TIERS],
    "updates": {
        "implicit_q_learning": 1_000_000,
        "trajectory_transformer": 195_000,
        "other": 100_000,
    },
    "episodes": {"trajectory_transformer": 15, "other": 100},
    "seeds": {},
    "flags": {
        "implicit_q_learning": [
            *("--model.temperature", "3", "--model.target-rate", "0.005"),
            *("--training.learning-rate", "3e-4"),
        ],
        "trajectory_transformer": [
            *("--model.transitions", "8", "--policy.context", "4"),
            *("--policy.horizon", "5", "--policy.beam-width", "32"),
        ],
    },
}
DEBUG: Mapping[str, Any] = {
    "data": [["hopper", "medium", 400]],
    "updates": {"other": 4},
    "episodes": {"other": 1},
    "seeds": {},
    "flags": {"trajectory_transformer": ["--policy.horizon", "1", "--policy.beam-width", "2"]},
}
