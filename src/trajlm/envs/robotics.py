"""The mazes of Gymnasium-Robotics, registered when one is asked for, and their episodic form.

`trajlm/PointMaze_X` is `PointMaze_X` with three changes. An episode terminates at its goal, so the
return of a sparsely rewarded one is its success, 1 or 0. An action is held for five steps of the
simulation, 0.05 s, in which the point moves by a quarter of a cell at most; the limit is a fifth of
the steps, the same time. `info["goal"]` tells the goal at reset, for policies that are asked for one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.spec import DataSpec, leaves

logger = logging.getLogger(__name__)

MAZES = ("PointMaze_", "AntMaze_")
"""What the ids of mazes begin with."""
EPISODIC = "trajlm/PointMaze_"
HELD = 5
PIP_LINE = 'pip install "trajlm[robotics]"'


class EpisodicMaze(gymnasium.Wrapper[Any, np.ndarray, Any, np.ndarray]):
    """A maze whose actions are held for `HELD` steps or until the episode ends; their rewards add up.

    The observation is a mapping: `observation` (4,), place and velocity; `achieved_goal` (2,), the
    place; `desired_goal` (2,).
    """

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        return observation, {**info, "goal": np.array(observation["desired_goal"], np.float32)}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(HELD):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


def is_maze(env_id: str) -> bool:
    """Whether an id is of one of these mazes, or of the episodic form."""
    return env_id.removeprefix("trajlm/").startswith(MAZES)


def check_goals(spec: DataSpec) -> None:
    """Raise `DataError` where data of a maze do not show the goal: nobody could know where to go."""
    if spec.env_id is None or not is_maze(spec.env_id):
        return
    if "observations/desired_goal" not in leaves(spec.observation, "observations"):
        raise DataError(
            f"dataset {spec.dataset!r}: recorded in {spec.env_id}, a maze, and its observations hold "
            "no `desired_goal`; keep the observations as the mappings that the maze gives"
        )


def register(env_id: str) -> None:
    """Register a maze, where Gymnasium-Robotics is installed and has it."""
    if not is_maze(env_id) or env_id in gymnasium.registry or not installed():
        return
    original = gymnasium.registry.get(env_id.removeprefix("trajlm/"))
    if original is None or not env_id.startswith(EPISODIC):
        return
    limit = original.max_episode_steps
    gymnasium.register(
        env_id,
        entry_point=partial(_make, original.id),
        max_episode_steps=None if limit is None else math.ceil(limit / HELD),
    )


def _make(original: str, **options: Any) -> gymnasium.Env[Any, Any]:
    made = gymnasium.make(
        original,
        disable_env_checker=True,
        max_episode_steps=-1,
        continuing_task=False,
        **options,
    )
    return EpisodicMaze(made)


def discard_model_file(environment: gymnasium.Env[Any, Any]) -> None:
    """Delete the file that a maze was compiled from, which the package leaves in the temporary folder."""
    written = getattr(environment.unwrapped, "tmp_xml_file_path", None)
    if written is not None:
        Path(written).unlink(missing_ok=True)


@cache
def installed() -> bool:
    """Whether Gymnasium-Robotics is there; registers its environments, once. What it prints goes to
    the log, and the entries of Gymnasium's own that it replaces by older ones stay."""
    before = dict(gymnasium.registry)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            import gymnasium_robotics  # noqa: F401 (registers its environments)
    except ImportError:
        return False
    gymnasium.registry.update(before)
    if said.getvalue():
        logger.debug("gymnasium_robotics: %s", said.getvalue().strip())
    return True
