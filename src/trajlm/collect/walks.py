"""Datasets of walks: whole episodes of a behaviour that is a function, in any environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.minari_writer import write
from trajlm.envs.make import make_environment
from trajlm.envs.spaces import from_gymnasium

Walk = Callable[[np.random.Generator, Any], int]
"""(generator, observation) -> action."""
FIRST_SEED = 1_000_000
"""Episodes of the data begin far from the seeds that policies are evaluated with."""


def episodes(
    walk: Walk, *, env_id: str, count: int, seed: int = 0
) -> Iterator[tuple[Trajectory, list[dict[str, Any]]]]:
    """`count` whole episodes, each with the `info` of its T+1 observations.

    Episode k is reset with `FIRST_SEED + seed + k` and draws from a generator of that number, so
    that it does not depend on `count`.
    """
    environment = make_environment(env_id)
    for number in range(FIRST_SEED + seed, FIRST_SEED + seed + count):
        generator = np.random.default_rng(number)
        observation, info = environment.reset(seed=number)
        observations, infos, actions, rewards = [observation], [info], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            action = walk(generator, observation)
            observation, reward, terminated, truncated, info = environment.step(action)
            observations.append(observation)
            infos.append(info)
            actions.append(action)
            rewards.append(reward)
        columns = {
            "observations": np.array(observations),
            "actions": np.array(actions, np.int64),
            "rewards": np.array(rewards, np.float32),
        }
        trajectory = Trajectory(
            columns=columns, terminated=bool(terminated), truncated=bool(truncated), seed=number
        )
        yield trajectory, infos
    environment.close()


def write_walks(
    walk: Walk, *, env_id: str, count: int, dataset_id: str, root: Path, behaviour: str
) -> Path:
    """`count` episodes as the Minari dataset `root/dataset_id`; `behaviour` says in words what walked.

    Raises `StorageError` where it exists or the disk refuses.
    """
    environment = make_environment(env_id)
    return write(
        (trajectory for trajectory, _ in episodes(walk, env_id=env_id, count=count)),
        dataset_id=dataset_id,
        observation_space=from_gymnasium(environment.observation_space),
        action_space=from_gymnasium(environment.action_space),
        env_id=env_id,
        metadata={"algorithm_name": behaviour},
        root=root,
    )
