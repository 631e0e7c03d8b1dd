"""MiniGrid's tasks with what the agent sees as integers.

`trajlm/MiniGrid-X` is `MiniGrid-X` whose observation, an image of codes with a direction and a
sentence, is one MultiDiscrete vector: for each of the 7 x 7 cells its object, colour and state, then
the direction. The sentence, which never changes in one-goal tasks, is left out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np

PREFIX = "trajlm/MiniGrid-"
NUM_OBJECTS, NUM_COLOURS, NUM_STATES, NUM_DIRECTIONS = 11, 6, 4, 4


class SymbolicView(gymnasium.ObservationWrapper[np.ndarray, Any, Any]):
    """The agent's view as MultiDiscrete, cell by cell in the image's order."""

    def __init__(self, environment: gymnasium.Env[Any, Any]) -> None:
        super().__init__(environment)
        image = environment.observation_space["image"]  # type: ignore[index]
        cells = int(np.prod(image.shape[:2]))
        sizes = [NUM_OBJECTS, NUM_COLOURS, NUM_STATES] * cells + [NUM_DIRECTIONS]
        self.observation_space = gymnasium.spaces.MultiDiscrete(sizes)

    def observation(self, observation: Any) -> np.ndarray:
        codes = np.asarray(observation["image"]).ravel()
        return np.append(codes, observation["direction"]).astype(np.int64)


def register(env_id: str) -> None:
    """Register the symbolic form of a MiniGrid task, where MiniGrid is installed and has it."""
    if not env_id.startswith(PREFIX) or env_id in gymnasium.registry:
        return
    try:
        import minigrid  # noqa: F401 (registers its tasks)
    except ImportError:
        return
    original = gymnasium.registry.get(env_id.removeprefix("trajlm/"))
    if original is not None:
        gymnasium.register(env_id, entry_point=partial(_make, original.id))


def _make(original: str, **options: Any) -> gymnasium.Env[Any, Any]:
    return SymbolicView(gymnasium.make(original, disable_env_checker=True, **options))
