"""Many environments of one kind behind one batched `Step`; resets happen only when asked for.

Gymnasium's `SyncVectorEnv` with autoreset disabled and `reset_mask` has the same meaning (a test
compares them), but it cannot leave out finished slots, one environment's exception ends all of
them, and it collects every step's infos (9 microseconds an environment and step, here 2).

Legend: N slots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from trajlm.core.errors import EnvironmentFault
from trajlm.core.protocols import Observation, Step
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space, leaves
from trajlm.envs.spaces import from_gymnasium

logger = logging.getLogger(__name__)


class VectorEnvironment:
    """N environments stepped together, each reset by itself with a seed of its own.

    `make_one` makes an environment; it is called N times, and again for a slot whose environment
    raised. With `tolerate_failures` an exception is kept in `failures` until the slot's next
    reset and the other slots go on; without it `EnvironmentFault` is raised.

    An environment tells the goal of an episode in `info["goal"]` at its reset; it becomes the
    `goal` of every `Step`.
    """

    def __init__(
        self,
        make_one: Callable[[], gymnasium.Env[Any, Any]],
        *,
        env_id: str,
        num_envs: int,
        max_episode_steps: int | None = None,
        tolerate_failures: bool = False,
    ) -> None:
        self.env_id = env_id
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.failures: dict[int, str] = {}
        self._make_one = make_one
        self._tolerate_failures = tolerate_failures
        self._environments = [make_one() for _ in range(num_envs)]
        self.observation_space: Space = from_gymnasium(self._environments[0].observation_space)
        self.action_space: Space = from_gymnasium(self._environments[0].action_space)
        self._buffers = {
            name: np.zeros((num_envs, *leaf.shape), leaf.dtype)
            for name, leaf in leaves(self.observation_space, "").items()
        }
        self._rewards = np.zeros(num_envs)
        self._terminated = np.zeros(num_envs, bool)
        self._truncated = np.zeros(num_envs, bool)
        self._is_first = np.zeros(num_envs, bool)
        self._seeds = np.zeros(num_envs, np.int64)
        self._goals: np.ndarray | None = None

    @property
    def environments(self) -> tuple[gymnasium.Env[Any, Any], ...]:
        """The environments of the slots, for renderers."""
        return tuple(self._environments)

    def reset(self, mask: np.ndarray | None = None, *, seeds: np.ndarray) -> Step:
        """Start an episode in the slots under `mask` (N,) bool (all where None).

        `seeds` (N,): each slot's own; those outside the mask are not looked at. The other slots
        show what they showed before.
        """
        for slot in range(self.num_envs) if mask is None else np.flatnonzero(mask):
            slot = int(slot)
            if slot in self.failures:
                self._rebuild(slot)
            self._seeds[slot] = int(seeds[slot])
            self._rewards[slot] = 0.0
            self._terminated[slot] = self._truncated[slot] = False
            self._is_first[slot] = True
            try:
                observation, info = self._environments[slot].reset(seed=int(seeds[slot]))
                self._write(slot, observation)
                self._write_goal(slot, info)
            except Exception as error:
                self._fail(slot, error, during="reset")
        return self._step()

    def step(self, actions: np.ndarray, *, active: np.ndarray | None = None) -> Step:
        """Step the slots under `active` (N,) bool (all where None) by `actions` (N, ...).

        A slot that is not active shows what it showed before; its action is not looked at. A slot
        that fails shows reward 0 and `truncated`.
        """
        environments, rewards = self._environments, self._rewards
        terminated, truncated, write = self._terminated, self._truncated, self._write
        slots = range(self.num_envs) if active is None else np.flatnonzero(active).tolist()
        self._is_first[:] = False if active is None else self._is_first & ~active
        for slot in slots:
            try:
                observation, rewards[slot], terminated[slot], truncated[slot], _ = environments[
                    slot
                ].step(actions[slot])
                write(slot, observation)
            except Exception as error:
                rewards[slot], terminated[slot], truncated[slot] = 0.0, False, True
                self._fail(slot, error, during="step")
        return self._step()

    def close(self) -> None:
        for environment in self._environments:
            environment.close()

    # ---- inside -----------------------------------------------------------------------------

    def _step(self) -> Step:
        return Step(
            observation=self._observation(),
            reward=self._rewards.copy(),
            terminated=self._terminated.copy(),
            truncated=self._truncated.copy(),
            is_first=self._is_first.copy(),
            seed=self._seeds.copy(),
            goal=None if self._goals is None else self._goals.copy(),
        )

    def _observation(self) -> Observation:
        if isinstance(self.observation_space, DictSpace):
            return {name.removeprefix("/"): rows.copy() for name, rows in self._buffers.items()}
        return self._buffers[""].copy()

    def _write(self, slot: int, observation: Any, prefix: str = "") -> None:
        if isinstance(observation, Mapping):
            for name, value in observation.items():
                self._write(slot, value, f"{prefix}/{name}")
        else:
            self._buffers[prefix][slot] = observation

    def _write_goal(self, slot: int, info: Mapping[str, Any]) -> None:
        """NaN stays where an environment has not told a goal yet."""
        goal = info.get("goal")
        if not isinstance(goal, np.ndarray):
            return
        if self._goals is None:
            self._goals = np.full((self.num_envs, *goal.shape), np.nan, np.float32)
        self._goals[slot] = goal

    def _fail(self, slot: int, error: Exception, *, during: str) -> None:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        message = f"{self.env_id} raised in {during}, seed {int(self._seeds[slot])}: {reason}"
        if not self._tolerate_failures:
            raise EnvironmentFault(message) from error
        logger.warning(message)
        self.failures[slot] = reason

    def _rebuild(self, slot: int) -> None:
        """A fresh environment for a slot whose last one raised."""
        try:
            self._environments[slot].close()
        except Exception as error:
            logger.debug("closing a failed environment raised %r", error)
        self._environments[slot] = self._make_one()
        del self.failures[slot]


def action_dtype(space: Space) -> np.dtype[Any]:
    """The dtype an action space's arrays have."""
    assert isinstance(space, Box | Discrete | MultiDiscrete), space
    return np.dtype(space.dtype)
