"""A transition as a row of tokens: which entry sits in which slot.

A transition is [observation, action, reward, value]; each entry has one slot, its own bins, its own
embeddings and its own head.

Legend: M rows, D slots of a transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trajlm.core.errors import UsageError
from trajlm.core.protocols import Observation
from trajlm.core.spec import Box, Discrete, MultiDiscrete, Space, leaves

MOST_SLOTS = 1024
KINDS = ("observation", "action", "reward", "value")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The slots of a transition. `observation_names`: the leaves' columns, in their order.

    `observation_size` entries are modelled; where the data have more, the first ones. `integers`
    (D,): the number of values of an entry that counts, and 0 where it is real; `starts` (D,): the
    first of them.
    """

    observation: Space
    action: Space
    observation_size: int
    action_size: int
    integers: tuple[int, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, observation: Space, action: Space, *, observation_size: int | None) -> Layout:
        """Raises `UsageError` for more entries than a transition may have tokens, and for actions
        that are not one array."""
        if not isinstance(action, Box | Discrete | MultiDiscrete):
            raise UsageError(
                f"actions: {type(action).__name__} has no tokens in this version; "
                "Box, Discrete and MultiDiscrete have"
            )
        inner = [n for leaf in leaves(observation, "observations").values() for n in _counts(leaf)]
        kept = len(inner) if observation_size is None else observation_size
        if not 1 <= kept <= len(inner):
            raise UsageError(f"observation_size: {kept} is not in 1..{len(inner)}")
        outer = [n for leaf in leaves(action, "actions").values() for n in _counts(leaf)]
        if kept + len(outer) + 2 > MOST_SLOTS:
            raise UsageError(
                f"observations: {kept} entries; a transition may have {MOST_SLOTS} tokens, so images "
                "have no tokens in this version"
            )
        inside = [n for leaf in leaves(observation, "observations").values() for n in _starts(leaf)]
        return cls(
            observation=observation,
            action=action,
            observation_size=kept,
            action_size=len(outer),
            integers=(*inner[:kept], *outer, 0, 0),
            starts=(*inside[:kept], *_starts(action), 0, 0),
        )

    @property
    def size(self) -> int:
        """D."""
        return self.observation_size + self.action_size + 2

    @property
    def actions(self) -> slice:
        return slice(self.observation_size, self.observation_size + self.action_size)

    @property
    def reward(self) -> int:
        return self.size - 2

    @property
    def value(self) -> int:
        return self.size - 1

    @property
    def names(self) -> list[str]:
        """Of each slot: observation_0, ..., action_0, ..., reward, value."""
        inner = [f"observation_{i}" for i in range(self.observation_size)]
        return [*inner, *(f"action_{i}" for i in range(self.action_size)), "reward", "value"]

    def kind(self, slot: int) -> str:
        """Which of `KINDS` a slot is of."""
        return self.names[slot].partition("_")[0]

    def observation_rows(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Observation columns by name, (M, ...) each, as (M, entries) float32."""
        names = leaves(self.observation, "observations")
        rows = [_entries(columns[name]) for name in names]
        return np.concatenate(rows, axis=1)[:, : self.observation_size]

    def action_rows(self, actions: np.ndarray) -> np.ndarray:
        """(M, ...) as (M, entries) float32."""
        return _entries(actions)

    def actions_of(self, rows: np.ndarray) -> np.ndarray:
        """(M, entries) back to actions (M, ...) in the environment's dtype and bounds."""
        space = self.action
        if isinstance(space, Discrete):
            return np.asarray(np.rint(rows[:, 0]), space.dtype)
        if isinstance(space, MultiDiscrete):
            return np.asarray(np.rint(rows), space.dtype)
        assert isinstance(space, Box)
        if space.low is not None and space.high is not None:
            rows = np.clip(rows, np.asarray(space.low), np.asarray(space.high))
        if np.issubdtype(np.dtype(space.dtype), np.integer):
            rows = np.rint(rows)
        return rows.reshape(-1, *space.shape).astype(space.dtype)


def _counts(leaf: Box | Discrete | MultiDiscrete) -> list[int]:
    """For each entry the number of its values; 0 where it is real."""
    if isinstance(leaf, Discrete):
        return [leaf.n]
    return list(leaf.nvec) if isinstance(leaf, MultiDiscrete) else [0] * leaf.size


def _starts(leaf: Box | Discrete | MultiDiscrete) -> list[int]:
    """For each entry the number it counts from."""
    return [leaf.start] if isinstance(leaf, Discrete) else [0] * len(_counts(leaf))


def _entries(column: np.ndarray) -> np.ndarray:
    return np.asarray(column).reshape(len(column), -1).astype(np.float32)


def columns_of(observation: Observation) -> dict[str, np.ndarray]:
    """Observations (N, ...) under the names of their columns."""
    if isinstance(observation, Mapping):
        return {f"observations/{name}": np.asarray(leaf) for name, leaf in observation.items()}
    return {"observations": np.asarray(observation)}
