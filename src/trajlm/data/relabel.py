"""The same episodes with another reward, or asked for what they reached anyway.

A reward is put into the environment's units, or all of it at the end; goals are taken in hindsight
from what followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.seeding import counter_bits
from trajlm.core.spec import DictSpace
from trajlm.data.columns import delayed
from trajlm.data.store import Segment, TrajectoryStore

Reward = Literal["recorded", "delayed"]
_GOAL_STREAM = 0x60A2


def with_reward(
    store: TrajectoryStore, *, scale: float = 1.0, reward: Reward = "recorded"
) -> TrajectoryStore:
    """The store with its rewards divided by `scale`, and moved to each episode's end if `delayed`.

    `scale` is what the environment's rewards were multiplied by when they were recorded; every
    return, target and score is in the environment's units afterwards. A delayed reward is noted in
    the store's spec, so that a policy holds the return it is asked for until the end. The content
    hash is another one: it is other data.
    """
    if scale == 1.0 and reward == "recorded":
        return store
    columns = []
    for segment in store.segments:
        values = np.asarray(segment.columns["rewards"], np.float64) / scale
        if reward == "delayed":
            values = delayed(values, segment.offsets)
        columns.append(values.astype(np.float32))
    words = f"{store.content_hash} reward={reward} scale={scale!r}"
    metadata: Mapping[str, object] = {**store.metadata, "delayed_reward": reward == "delayed"}
    return replace(
        store.with_column("rewards", columns),
        content_hash=hashlib.sha256(words.encode()).hexdigest(),
        metadata=metadata,
    )


def with_hindsight_goals(
    store: TrajectoryStore, *, env_id: str | None = None, copies: int = 1, seed: int = 0
) -> TrajectoryStore:
    """The store with observations of a Dict space, `observation` and `desired_goal`.

    The goal of a step is drawn evenly from the observations that follow it in its episode
    (Andrychowicz et al. 2017, "future"), anew for each step and each of the `copies` of the episodes.
    Observations and goals have one space; an episode's last observation has itself as its goal.
    `env_id`: an environment of that form. Raises `DataError` where observations are a Dict already.
    """
    if isinstance(store.observation_space, DictSpace):
        raise DataError("hindsight goals: the observations are a Dict space already")
    segments = tuple(
        _with_goals(segment, seed=seed, draw=copy * len(store.segments) + number)
        for copy in range(copies)
        for number, segment in enumerate(store.segments)
    )
    further = np.array([[len(store.segments), 0]])
    words = f"{store.content_hash} hindsight goals copies={copies} seed={seed}"
    space = store.observation_space
    return replace(
        store,
        observation_space=DictSpace(subspaces={"observation": space, "desired_goal": space}),
        segments=segments,
        index=np.concatenate([store.index + copy * further for copy in range(copies)]),
        env_id=env_id,
        content_hash=hashlib.sha256(words.encode()).hexdigest(),
    )


def _with_goals(segment: Segment, *, seed: int, draw: int) -> Segment:
    observations = segment.columns["observations"]
    rows = segment.lengths + int(segment.has_last_observation)
    last = np.repeat(np.cumsum(rows) - 1, rows)
    here = np.arange(len(observations))
    ahead = np.maximum(last - here, 1).astype(np.uint64)
    drawn = (counter_bits(seed, _GOAL_STREAM, draw, here) % ahead).astype(np.int64)
    columns = {name: column for name, column in segment.columns.items() if name != "observations"}
    columns["observations/observation"] = observations
    columns["observations/desired_goal"] = observations[np.minimum(here + 1 + drawn, last)]
    return replace(segment, columns=columns)
