"""The project's own environments by their ids, registered when one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from trajlm.envs import four_rooms


@dataclass(frozen=True, kw_only=True)
class World:
    """`entry_point`: module and class, imported when the environment is made. `steps`: the limit
    after which an episode is truncated, None where the environment ends by itself. `options`: what
    the class is made with."""

    entry_point: str
    steps: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


HUMANOID = "trajlm/Humanoid-v5"
"""Gymnasium's Humanoid-v5, observed by positions and velocities alone: 45 numbers, not 348. So a
state is observed whole, but for where it is, as those of the planar bodies are."""
_UNSEEN = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")

WORLDS = {
    four_rooms.ENV_ID: World(
        entry_point="trajlm.envs.four_rooms:FourRooms", steps=four_rooms.STEP_LIMIT
    ),
    four_rooms.GOAL_ENV_ID: World(
        entry_point="trajlm.envs.four_rooms:goal_observed", steps=four_rooms.STEP_LIMIT
    ),
    "trajlm/KeyToDoor-v0": World(entry_point="trajlm.envs.key_to_door:KeyToDoor"),
    "trajlm/ShortestPath-v0": World(entry_point="trajlm.envs.shortest_path:ShortestPath", steps=10),
    HUMANOID: World(
        entry_point="gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv",
        steps=1000,
        options={f"include_{name}_in_observation": False for name in _UNSEEN},
    ),
}


def register(env_id: str) -> None:
    """Register `env_id` where it is one of these and not registered yet."""
    world = WORLDS.get(env_id)
    if world is not None and env_id not in gymnasium.registry:
        gymnasium.register(
            env_id,
            entry_point=world.entry_point,
            max_episode_steps=world.steps,
            kwargs=dict(world.options),
        )
