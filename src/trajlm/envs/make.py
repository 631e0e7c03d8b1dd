"""Environments by their id in Gymnasium's registry.

Only registered ids are made: `module:Env` would import a module that a dataset names, and no
dataset's `env_spec` is ever passed on.
"""

from __future__ import annotations

import logging
import os
from functools import cache, partial
from typing import Any

import gymnasium

from trajlm.core.errors import EnvironmentFault, suggestion
from trajlm.core.spec import DataSpec
from trajlm.envs import minigrid, robotics, worlds
from trajlm.envs.spaces import check_fit
from trajlm.envs.vector import VectorEnvironment

logger = logging.getLogger(__name__)

_PIP_LINES = {
    "gymnasium.envs.mujoco": 'pip install "trajlm[mujoco]"',
    "gymnasium.envs.box2d": 'pip install "gymnasium[box2d]"',
    "gymnasium.envs.toy_text": 'pip install "gymnasium[toy-text]"',
    "gymnasium.envs.classic_control": 'pip install "gymnasium[classic-control]"',
    "gymnasium_robotics": robotics.PIP_LINE,
    "ale_py": 'pip install "gymnasium[atari]"',
}


def registered(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registry's entry. Raises `EnvironmentFault` for an id that is not registered."""
    if ":" in env_id:
        raise EnvironmentFault(
            f"environment id {env_id!r} would import a module; import it yourself and give the "
            f"registered id, {env_id.rpartition(':')[2]!r}"
        )
    minigrid.register(env_id)
    robotics.register(env_id)
    worlds.register(env_id)
    entry = gymnasium.registry.get(env_id)
    if entry is None and env_id.startswith(minigrid.PREFIX):
        raise EnvironmentFault(
            f'environment {env_id!r} is not known to MiniGrid; pip install "trajlm[minigrid]" brings '
            "its tasks"
        )
    if entry is None and robotics.is_maze(env_id) and not robotics.installed():
        raise EnvironmentFault(
            f"environment {env_id!r} is a maze of Gymnasium-Robotics; {robotics.PIP_LINE}"
        )
    if entry is None:
        near = _same_name(env_id) or suggestion(env_id, [*gymnasium.registry, *worlds.WORLDS])
        raise EnvironmentFault(f"environment {env_id!r} is not registered{near}")
    return entry


def make_environment(env_id: str, *, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """One environment. Raises `EnvironmentFault` naming the package to install or the cause."""
    entry = registered(env_id)
    origin = str(entry.entry_point)
    if origin.startswith("gymnasium.envs.mujoco") or robotics.is_maze(env_id):
        _prepare_mujoco()
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        # The passive checker costs a tenth of HalfCheetah's physics.
        made = gymnasium.make(env_id, disable_env_checker=True, **options)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        line = next((line for start, line in _PIP_LINES.items() if origin.startswith(start)), "")
        way_out = f"; {line}" if line else ""
        raise EnvironmentFault(
            f"{env_id} needs a package that is missing ({_first_line(error)}){way_out}"
        ) from error
    except Exception as error:
        raise EnvironmentFault(f"{env_id} cannot be made: {_first_line(error)}") from error
    robotics.discard_model_file(made)
    return made


def make_vector(
    env_id: str, *, num_envs: int, render: bool = False, tolerate_failures: bool = False
) -> VectorEnvironment:
    """`num_envs` environments behind one batched step; `render` asks for RGB frames."""
    return VectorEnvironment(
        partial(make_environment, env_id, render_mode="rgb_array" if render else None),
        env_id=env_id,
        num_envs=num_envs,
        max_episode_steps=max_episode_steps(env_id),
        tolerate_failures=tolerate_failures,
    )


def max_episode_steps(env_id: str) -> int | None:
    """The registered time limit in steps, None where there is none."""
    return registered(env_id).max_episode_steps


def check_spaces(spec: DataSpec, environment: VectorEnvironment) -> None:
    """Raise `EnvironmentFault`, naming both shapes, where a model of `spec` does not fit."""
    check_fit(
        spec,
        observation=environment.observation_space,
        action=environment.action_space,
        env_id=environment.env_id,
    )


def _same_name(env_id: str) -> str:
    """A clause naming the newest registered version of the same name: `HalfCheetah-v2` -> `-v5`."""
    name = env_id.rpartition("-v")[0] or env_id
    versions = [known for known in gymnasium.registry if known.rpartition("-v")[0] == name]
    newest = max(versions, key=lambda known: gymnasium.registry[known].version or 0, default=None)
    return f"; did you mean {newest!r}?" if newest else ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@cache
def _prepare_mujoco() -> None:
    """Import MuJoCo so that it neither fails for want of a GL library nor writes log files.

    With MUJOCO_GL=egl (or osmesa) and no such library, the import itself raises: it is repeated
    without rendering. MuJoCo's warnings, of which HalfCheetah's model gives one for every
    environment made, would be printed and appended to MUJOCO_LOG.TXT in the working folder: they
    go to the log. Somebody else's handler stays.
    """
    try:
        import mujoco
    except ImportError:
        return
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL")
        logger.warning("MUJOCO_GL=%s does not work here (%s): going on without", backend, error)
        os.environ["MUJOCO_GL"] = "disabled"
        import mujoco
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_log_mujoco_warning)


def _log_mujoco_warning(message: str) -> None:
    level = logging.DEBUG if "deprecated" in message else logging.WARNING
    logger.log(level, "MuJoCo: %s", message)
