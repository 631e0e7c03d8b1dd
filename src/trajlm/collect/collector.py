"""Collects a dataset from the behaviours shipped with the package, as a Minari dataset.

A tier is a list of behaviours that share the steps equally. Each behaviour's episodes are
numbered and seeded by their number; a tier takes the shortest run of them, from the first, that
has its share of the steps. Episodes are whole: the last one is neither cut, which would put a
wrong return into the data, nor dropped, which would prefer short episodes. A dataset therefore
has the steps asked for or, by less than an episode a behaviour, more.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.collect import mazes
from trajlm.collect.behaviour import REPLAY, TIERS, body_facts, load_behaviour
from trajlm.collect.episodes import SLOTS
from trajlm.collect.pool import Pool, in_blocks, open_pool
from trajlm.core.errors import Interrupted, StorageError, UsageError, suggestion
from trajlm.core.machine import available_cores
from trajlm.core.spec import Box, Space
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.minari import write
from trajlm.data.sources.minari_form import folder_of
from trajlm.envs.make import make_environment, max_episode_steps, registered
from trajlm.envs.maze_map import MAZES
from trajlm.envs.spaces import from_gymnasium

UNKNOWN_LIMIT = 1000
Progress = Callable[[int, int], None]


def dataset_id(body: str, tier: str) -> str:
    """The Minari id of a body's tier."""
    return f"trajlm/{body}/{tier}-v0"


def tier_behaviours(body: str, tier: str) -> tuple[str, ...]:
    """The behaviours of a tier, in the dataset's order. Raises `UsageError` with the nearest."""
    if tier not in TIERS:
        near = suggestion(tier, TIERS) or f"; known: {', '.join(TIERS)}"
        raise UsageError(f"unknown tier {tier!r}{near}")
    if tier == "replay":
        return tuple(name for name in body_facts(body)["snapshots"] if name.startswith(REPLAY))
    return tuple(tier.split("-"))


def collect(
    body: str,
    tier: str,
    *,
    steps: int,
    seed: int = 0,
    root: Path | None = None,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Collect `steps` steps and return the folder of the dataset `trajlm/BODY/TIER-v0`.

    A BODY may be a maze (`collect/mazes.py`), whose one tier is `waypoints`; one process walks it.

    The data depends on `seed` alone, not on the number of `processes` (None: one a core).
    `root`: where Minari keeps datasets (None: $MINARI_DATASETS_PATH, else ~/.minari/datasets).
    `progress(done, total)` is told of steps as they come. Raises `UsageError` for an unknown body
    or tier, `StorageError` where the dataset exists and `overwrite` is False, `EnvironmentFault`
    where the environment cannot be made, `Interrupted` on SIGINT; then nothing is written.
    """
    if body.partition("-")[0] in {name.partition("-")[0] for name in MAZES}:
        return mazes.collect(
            body, tier, steps=steps, seed=seed, root=root, overwrite=overwrite, progress=progress
        )
    names = tier_behaviours(body, tier)
    if steps < len(names):
        raise UsageError(f"steps must be {len(names)} or more for {body}/{tier}, found {steps}")
    if processes is not None and processes < 1:
        raise UsageError(f"processes must be 1 or more, found {processes}")
    folder = folder_of(dataset_id(body, tier), root=root)
    if folder.exists() and not overwrite:
        raise StorageError(f"{folder} exists already; pass overwrite to collect it again")
    env_id = str(body_facts(body)["env_id"])
    for name in names:
        load_behaviour(body, name)
    observation_space, action_space = _spaces(env_id)
    limit = max_episode_steps(env_id) or UNKNOWN_LIMIT
    parts = [
        _Part(body=body, behaviour=name, seed=seed, steps=share)
        for name, share in zip(names, _shares(steps, len(names)), strict=True)
    ]
    blocks = sum(math.ceil(part.missing(limit) / SLOTS) for part in parts)
    pool = open_pool(processes or min(available_cores(), blocks))
    try:
        _fill(parts, pool, limit=limit, progress=progress or (lambda done, total: None))
        return write(
            [episode for part in parts for episode in part.episodes],
            dataset_id=dataset_id(body, tier),
            observation_space=observation_space,
            action_space=action_space,
            env_spec=registered(env_id).to_json(),
            root=root,
            reference_scores=_reference_scores(body),
            metadata=_metadata(parts, tier=tier),
            overwrite=overwrite,
        )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; no dataset was written", signal_number=signal.SIGINT
        ) from None
    finally:
        pool.close()


@dataclass(kw_only=True)
class _Part:
    """One behaviour's share of a dataset, while it fills: `episodes` are numbers 0, 1, ..."""

    body: str
    behaviour: str
    seed: int
    steps: int
    episodes: list[Trajectory] = field(default_factory=list)
    collected: int = 0

    @property
    def full(self) -> bool:
        return self.collected >= self.steps

    def missing(self, limit: int) -> int:
        """Episodes to run next: as many as it takes at the mean length so far, at first `limit`."""
        length = self.collected / len(self.episodes) if self.episodes else limit
        return math.ceil((self.steps - self.collected) / length)

    def take(self, episodes: list[Trajectory]) -> None:
        """Add what comes next, up to the share."""
        for episode in episodes:
            if not self.full:
                self.episodes.append(episode)
                self.collected += len(episode)

    def submit(self, pool: Pool, *, limit: int) -> list[Future[list[Trajectory]]]:
        tasks = in_blocks(
            len(self.episodes),
            self.missing(limit),
            body=self.body,
            behaviour=self.behaviour,
            seed=self.seed,
            slots=SLOTS,
        )
        return [pool.submit(task) for task in tasks]


def _fill(parts: list[_Part], pool: Pool, *, limit: int, progress: Progress) -> None:
    """Run episodes until every part is full. Rounds only set the pace, never the result."""
    total = sum(part.steps for part in parts)
    progress(0, total)
    while waiting := [part for part in parts if not part.full]:
        rounds = [(part, part.submit(pool, limit=limit)) for part in waiting]
        for part, futures in rounds:
            for future in futures:
                part.take(future.result())
                progress(min(total, sum(min(p.collected, p.steps) for p in parts)), total)


def _shares(steps: int, count: int) -> list[int]:
    """`steps` in `count` equal shares; the first ones take what does not divide."""
    return [steps // count + (number < steps % count) for number in range(count)]


def _spaces(env_id: str) -> tuple[Space, Space]:
    """The environment's spaces, with the kind of float that is stored."""
    environment = make_environment(env_id)
    observation = from_gymnasium(environment.observation_space)
    action = from_gymnasium(environment.action_space)
    environment.close()
    if isinstance(observation, Box):
        observation = replace(observation, dtype="float32")
    return observation, action


def _reference_scores(body: str) -> tuple[float, float]:
    """Mean returns of `random` and `expert`: 0 and 100 of the dataset score."""
    facts = body_facts(body)
    return float(facts["random_return"]), float(facts["expert_return"])


def _metadata(parts: list[_Part], *, tier: str) -> dict[str, Any]:
    body, seed = parts[0].body, parts[0].seed
    lines = [f"{body}/{tier}: episodes of trajlm's own behaviours, seed {seed}, in this order:"]
    for part in parts:
        returns = np.array([episode.episode_return for episode in part.episodes])
        lines.append(
            f"{part.behaviour}: {len(returns)} episodes, {part.collected} steps, "
            f"return {returns.mean():.1f} +- {returns.std():.1f}{_training(body, part.behaviour)}."
        )
    return {
        "author": ["trajlm"],
        "algorithm_name": "PPO" if tier != "random" else "uniform random",
        "description": " ".join(lines),
        "requirements": [
            f"{name}=={version(name)}" for name in ("gymnasium", "mujoco") if _has(name)
        ],
    }


def _training(body: str, behaviour: str) -> str:
    snapshot = body_facts(body)["snapshots"].get(behaviour)
    if snapshot is None:
        return ""
    return f" (PPO seed {snapshot['seed']}, {snapshot['steps']} training steps)"


def _has(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False
