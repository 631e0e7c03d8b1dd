"""The contracts between floors: what a policy is, what it sees and what it is asked for.

Arrays at this border are NumPy and have a leading axis N, one entry an environment (a slot).
A policy may hold tensors of any library inside its carry; nobody else looks into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

Observation = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What N environments show before an action is chosen.

    `observation` (N, ...), or by leaf name for a Dict space. `reward` (N,): of the step before,
    0 where `is_first`. `terminated`, `truncated` (N,) bool: of the step before. `is_first` (N,)
    bool: the slot starts afresh. `seed` (N,) int64: the episode's seed; with the step count it
    keys every random draw. `goal` (N, ...): what the running episodes ask for, where the
    environment tells goals; an observation to reach.
    """

    observation: Observation
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    is_first: np.ndarray
    seed: np.ndarray
    goal: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        observation: np.ndarray,
        *,
        reward: float = 0.0,
        terminated: bool = False,
        truncated: bool = False,
        is_first: bool = False,
        seed: int = 0,
    ) -> Step:
        """A step of a single environment, with the leading axis added: for one's own loop."""
        return cls(
            observation=np.asarray(observation)[None],
            reward=np.array([reward], np.float64),
            terminated=np.array([terminated]),
            truncated=np.array([truncated]),
            is_first=np.array([is_first]),
            seed=np.array([seed], np.int64),
        )

    def select(self, index: np.ndarray) -> Step:
        """The step of the slots at `index` (M,), in that order."""
        observation = self.observation
        return Step(
            observation={name: leaf[index] for name, leaf in observation.items()}
            if isinstance(observation, Mapping)
            else observation[index],
            reward=self.reward[index],
            terminated=self.terminated[index],
            truncated=self.truncated[index],
            is_first=self.is_first[index],
            seed=self.seed[index],
            goal=None if self.goal is None else self.goal[index],
        )


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What each slot is asked for: a target return (N,), a goal (N, ...), or nothing."""

    target_return: np.ndarray | None = None
    goal: np.ndarray | None = None

    def select(self, index: np.ndarray) -> Condition:
        """The condition of the slots at `index` (M,)."""
        return Condition(
            target_return=None if self.target_return is None else self.target_return[index],
            goal=None if self.goal is None else self.goal[index],
        )


class Carry(Protocol):
    """A policy's memory: a frozen dataclass whose every field has the leading slot axis."""

    def select(self, index: np.ndarray) -> Carry:
        """The memory of the slots at `index` (M,), in that order."""
        ...


CarryType = TypeVar("CarryType", bound=Carry)


@runtime_checkable
class Policy(Protocol):
    """Chooses actions for many environments at once; all its state is in the carry."""

    def initial(self, num_envs: int, condition: Condition | None = None) -> Any:
        """An empty memory for `num_envs` slots. Without a condition the policy's own applies."""
        ...

    def act(self, carry: Any, step: Step) -> tuple[Any, np.ndarray]:
        """The new memory and the actions (N, ...) in the environment's units and dtype."""
        ...


class Critic(Protocol):
    """Scores state-action pairs: (N, observation), (N, action) -> (N,) values.

    Observations and actions are rows of real numbers (the entries of all leaves in their order) in
    the data's units; a value is the discounted sum of the rewards from this action on.
    """

    def value(self, observation: Any, action: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Past:
    """What N episodes have shown up to their present.

    `observations` (N, K, O): the last K, the present one last. `actions` (N, K-1, ...) and
    `rewards` (N, K-1): of the steps between them.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray

    def select(self, index: np.ndarray) -> Past:
        """The past of the episodes at `index` (M,), any number of times each."""
        return Past(
            observations=self.observations[index],
            actions=self.actions[index],
            rewards=self.rewards[index],
        )

    def last(self, count: int) -> Past:
        """Its last `count` observations, or all where there are fewer."""
        kept = min(count, self.observations.shape[1])
        between = self.actions.shape[1] - (kept - 1)
        return Past(
            observations=self.observations[:, -kept:],
            actions=self.actions[:, between:],
            rewards=self.rewards[:, between:],
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model expects of H steps after the present of N episodes, in raw units.

    `observations` (N, H, O): after 1, ..., H steps; of a model of some entries, those.
    `actions` (N, H, ...) and `rewards` (N, H): of these steps.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


class WorldModel(Protocol):
    """Predicts many episodes at once, open loop: nothing that truly happens comes in between.

    `context`: how many observations of the past it sees, the present one among them.
    `models_actions`: whether it can choose them itself.
    """

    @property
    def context(self) -> int: ...

    @property
    def models_actions(self) -> bool: ...

    def predict(
        self,
        past: Past,
        *,
        horizon: int,
        actions: np.ndarray | Policy | None = None,
        seeds: np.ndarray | None = None,
    ) -> Prediction:
        """`actions` (N, H, ...): given; a policy that chooses them; None: the model's own.

        `seeds` (N,): each row is one draw from what the model believes, a function of its seed;
        None: what it holds likeliest, step by step. Raises `UsageError` for actions that this model
        cannot take.
        """
        ...
