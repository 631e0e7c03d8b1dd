"""The project's own environments by their ids, registered when one is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

from trajlm.envs import four_rooms


@dataclass(frozen=True, kw_only=True)
class World:
    """`entry_point`: module and class, imported when the environment is made. `steps`: the limit
    after which an episode is truncated, None where the environment ends by itself."""

    entry_point: str
    steps: int | None = None


WORLDS = {
    four_rooms.ENV_ID: World(
        entry_point="trajlm.envs.four_rooms:FourRooms", steps=four_rooms.STEP_LIMIT
    ),
    four_rooms.GOAL_ENV_ID: World(
        entry_point="trajlm.envs.four_rooms:goal_observed", steps=four_rooms.STEP_LIMIT
    ),
    "trajlm/KeyToDoor-v0": World(entry_point="trajlm.envs.key_to_door:KeyToDoor"),
    "trajlm/ShortestPath-v0": World(entry_point="trajlm.envs.shortest_path:ShortestPath", steps=10),
}


def register(env_id: str) -> None:
    """Register `env_id` where it is one of these and not registered yet."""
    world = WORLDS.get(env_id)
    if world is not None and env_id not in gymnasium.registry:
        gymnasium.register(env_id, entry_point=world.entry_point, max_episode_steps=world.steps)
