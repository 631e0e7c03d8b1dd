"""Walks through mazes by waypoints: play, in which a goal is reached by chance.

An episode's goal is the environment's. The walker never looks at it: it goes to a cell of its own
choice nearby by the shortest way, cell by cell, with noise, then to another one, until it comes upon
the goal or the time is over. So data show every step of a way and few whole ones: who is to find
the goal must put together what no episode shows at once, as in D4RL's mazes (Fu et al. 2020, arXiv
2004.07219, section 5).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import Interrupted, StorageError, UsageError, suggestion
from trajlm.core.spec import Box, DictSpace, Space
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.minari_form import folder_of
from trajlm.data.sources.minari_writer import write
from trajlm.envs.make import make_environment
from trajlm.envs.maze_map import MAZES, Cell, MazeMap
from trajlm.envs.spaces import from_gymnasium

TIER = "waypoints"
NOISE = 0.4
"""The standard deviation of what is added to an action, along each axis; actions are within 1."""
SPEED = 3.0
"""Between waypoints, in cells a second; the point reaches 5."""
FIRST_SEED = 1_000_000
"""Episodes of the data begin far from the seeds that policies are evaluated with."""
REACH = 2
"""How many cells away a walker's next goal may lie."""
_BRAKING = 4.0
_GAIN = 0.6
_ARRIVED = 0.3


class Walker:
    """Goes from cell to cell in `maze`; one for each episode."""

    def __init__(self, maze: MazeMap, *, noise: float = NOISE) -> None:
        self.maze, self.noise = maze, noise
        self.way: list[Cell] = []

    def __call__(
        self, generator: np.random.Generator, observation: dict[str, np.ndarray]
    ) -> np.ndarray:
        """The action (2,) float32 for what is observed: the speed wanted less the speed had, as a
        force, with noise."""
        place, speed = observation["observation"][:2], observation["observation"][2:]
        here = self.maze.cell_of(place)
        while not self.way:
            ways = short_ways(self.maze, here)
            self.way = list(ways[generator.integers(len(ways))][1:])
        ahead = self.maze.centre(self.way[0]) - place
        distance = float(np.linalg.norm(ahead))
        if distance < _ARRIVED:
            self.way = self.way[1:]
        wanted = ahead / max(distance, 1e-6) * min(SPEED, _BRAKING * distance)
        force = _GAIN * (wanted - speed) + generator.normal(scale=self.noise, size=2)
        return np.asarray(np.clip(force, -1.0, 1.0), np.float32)


@cache
def short_ways(maze: MazeMap, start: Cell) -> list[list[Cell]]:
    """The shortest ways from a cell to each that is at most `REACH` cells away."""
    row, column = start
    near = [c for c in maze.free if 0 < abs(c[0] - row) + abs(c[1] - column) <= REACH]
    ways = [maze.way(start, end) for end in near]
    return [way for way in ways if len(way) <= REACH + 1]


def walks(env_id: str, *, steps: int, seed: int = 0, noise: float = NOISE) -> Iterator[Trajectory]:
    """Whole episodes, until there are `steps` steps or, by less than an episode, more.

    Episode k is reset with `FIRST_SEED + seed + k` and draws from a generator of that number, so it
    does not depend on how many are asked for.
    """
    environment = make_environment(env_id)
    maze, number, done = MazeMap.of(environment), FIRST_SEED + seed, 0
    while done < steps:
        episode = _walked(environment, Walker(maze, noise=noise), seed=number)
        number, done = number + 1, done + len(episode)
        yield episode
    environment.close()


def collect(
    name: str,
    tier: str,
    *,
    steps: int,
    seed: int = 0,
    root: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the Minari dataset `trajlm/NAME/waypoints-v0` of a maze, such as `pointmaze-umaze`.

    `root`: where Minari keeps datasets. `progress(done, total)` is told of steps. Raises `UsageError`
    for an unknown maze or tier, `StorageError` where the dataset exists and `overwrite` is False,
    `EnvironmentFault` without Gymnasium-Robotics, `Interrupted` on SIGINT; then nothing is written.
    """
    if name not in MAZES:
        near = suggestion(name, MAZES) or f"; known: {', '.join(MAZES)}"
        raise UsageError(f"unknown maze {name!r}{near}")
    if tier != TIER:
        raise UsageError(f"unknown tier {tier!r} of a maze; write {name}/{TIER}")
    if steps < 1:
        raise UsageError(f"steps must be 1 or more for {name}/{tier}, found {steps}")
    dataset_id = f"trajlm/{name}/{tier}-v0"
    folder = folder_of(dataset_id, root=root)
    if folder.exists() and not overwrite:
        raise StorageError(f"{folder} exists already; pass overwrite to collect it again")
    environment = make_environment(MAZES[name])
    spaces = [
        _stored(from_gymnasium(space))
        for space in (environment.observation_space, environment.action_space)
    ]
    environment.close()
    found = walks(MAZES[name], steps=steps, seed=seed)
    try:
        return write(
            _told(found, steps, progress or (lambda done, total: None)),
            dataset_id=dataset_id,
            observation_space=spaces[0],
            action_space=spaces[1],
            env_id=MAZES[name],
            root=root,
            reference_scores=(0.0, 1.0),
            metadata={
                "algorithm_name": "waypoint controller",
                "description": f"{name}: walks from cell to cell that do not look at the goal; noise "
                f"{NOISE}, seed {seed}.",
                "requirements": [
                    f"{each}=={version(each)}"
                    for each in ("gymnasium", "gymnasium-robotics", "mujoco")
                ],
            },
            overwrite=overwrite,
        )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; no dataset was written", signal_number=signal.SIGINT
        ) from None


def _walked(environment: Any, walker: Walker, *, seed: int) -> Trajectory:
    generator = np.random.default_rng(seed)
    observation, _ = environment.reset(seed=seed)
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(walker(generator, observation))
        observation, reward, terminated, truncated, _ = environment.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
    columns = {
        f"observations/{leaf}": np.array([each[leaf] for each in observations], np.float32)
        for leaf in observation
    }
    columns |= {"actions": np.array(actions), "rewards": np.array(rewards, np.float32)}
    return Trajectory(
        columns=columns, terminated=terminated, truncated=truncated and not terminated, seed=seed
    )


def _told(
    episodes: Iterator[Trajectory], steps: int, progress: Callable[[int, int], None]
) -> Iterator[Trajectory]:
    done = 0
    progress(done, steps)
    for episode in episodes:
        done += len(episode)
        progress(min(done, steps), steps)
        yield episode


def _stored(space: Space) -> Space:
    """The space with the kind of float that is stored."""
    if isinstance(space, DictSpace):
        return DictSpace(subspaces={name: _stored(leaf) for name, leaf in space.subspaces.items()})
    if isinstance(space, Box):
        return Box(shape=space.shape, low=space.low, high=space.high)
    return space
