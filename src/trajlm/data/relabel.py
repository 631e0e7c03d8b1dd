"""Another reward for the same episodes: in the environment's units, or all of it at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from trajlm.data.columns import delayed
from trajlm.data.store import TrajectoryStore

Reward = Literal["recorded", "delayed"]


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
