"""The true dynamics of a point in a maze, from any state, many at once.

Legend: N states, H steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trajlm.core.machine import available_cores
from trajlm.envs.make import make_environment
from trajlm.envs.robotics import HELD


class PointMaze:
    """The simulator of a maze `trajlm/PointMaze_*`, apart from its episodes."""

    def __init__(self, env_id: str) -> None:
        import mujoco
        from mujoco.rollout import Rollout

        environment: Any = make_environment(env_id)
        self._model = environment.unwrapped.point_env.model
        environment.close()
        cores = available_cores()
        self._data = [mujoco.MjData(self._model) for _ in range(cores)]
        self._rollout = Rollout(nthread=cores)

    def replay(self, present: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """States (N, H, 4), place and velocity, after each of the actions (N, H, 2) from the present
        ones (N, 4); each action is held as the environment holds it, and nothing ends."""
        held = actions.repeat(HELD, axis=1).astype(np.float64)
        first = np.concatenate([np.zeros((len(present), 1)), present], axis=1)  # the time before
        states, _ = self._rollout.rollout(self._model, self._data, first, held)
        return np.asarray(states[:, HELD - 1 :: HELD, 1:5])
