"""Run a policy in many environments at once, a fixed number of episodes for each slot.

A slot has its own condition and its own list of seeds, so which episodes are run does not depend
on how long they last. A slot whose list is done leaves the batch: the policy never computes for
it again. An episode whose policy or environment misbehaves is marked failed, the others go on.

Legend: N slots at the start, M slots still running (a row of the batch each), T an episode's steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trajlm.core.errors import EnvironmentFault, UsageError
from trajlm.core.protocols import Condition, Observation, Policy, Step
from trajlm.core.trajectory import Trajectory
from trajlm.envs.make import make_vector
from trajlm.envs.vector import VectorEnvironment, action_dtype

Progress = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One episode. `failure` is empty, or says why its return must not be counted."""

    slot: int
    number: int
    seed: int
    episode_return: float
    length: int
    terminated: bool
    truncated: bool
    failure: str = ""
    trajectory: Trajectory | None = None

    @property
    def failed(self) -> bool:
        return bool(self.failure)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """`episodes[slot][number]`, and where the time went (seconds; `steps` of environments)."""

    episodes: list[list[EpisodeRecord]]
    model_seconds: float
    physics_seconds: float
    total_seconds: float
    steps: int
    forwards: int


def rollout(
    policy: Policy,
    *,
    seeds: Sequence[Sequence[int]] | np.ndarray,
    env_id: str = "",
    environment: VectorEnvironment | None = None,
    conditions: Condition | None = None,
    record: bool = False,
    progress: Progress | None = None,
) -> Rollout:
    """Run slot i through the episodes `seeds[i]`, asked for `conditions` row i.

    Give `env_id`, or an `environment` of N slots made with `tolerate_failures`. `record` keeps
    each episode's columns as a `Trajectory` (not of failed ones). Raises `EnvironmentFault` where
    the environment cannot be made or the policy's actions do not have its shape.
    """
    own = environment is None
    if environment is None:
        environment = make_vector(env_id, num_envs=len(seeds), tolerate_failures=True)
    if environment.num_envs != len(seeds):
        raise UsageError(f"{len(seeds)} lists of seeds for {environment.num_envs} environments")
    run = _Run(environment, [[int(s) for s in row] for row in seeds], record=record)
    try:
        return run.through(policy, conditions, progress)
    finally:
        if own:
            environment.close()


class _Run:
    """The bookkeeping of one rollout: which episode each slot is in and what it has given."""

    def __init__(
        self, environment: VectorEnvironment, seeds: list[list[int]], *, record: bool
    ) -> None:
        count = environment.num_envs
        self.environment, self.seeds = environment, seeds
        self.returns = np.zeros(count)
        self.lengths = np.zeros(count, np.int64)
        self.finished: list[list[EpisodeRecord]] = [[] for _ in range(count)]
        self.recorder = _Recorder(count) if record else None
        self.current = environment.reset(np.zeros(count, bool), seeds=np.zeros(count, np.int64))
        self.model_seconds = self.physics_seconds = 0.0
        self.steps = self.forwards = 0

    def through(
        self, policy: Policy, conditions: Condition | None, progress: Progress | None
    ) -> Rollout:
        started = time.perf_counter()
        rows = self._begin(np.arange(len(self.seeds)))
        carry = policy.initial(len(rows), None if conditions is None else conditions.select(rows))
        while len(rows):
            before = time.perf_counter()
            carry, actions = policy.act(carry, self.current.select(rows))
            after = time.perf_counter()
            keep = self._advance(rows, self._checked(actions, len(rows)))
            if not keep.all():
                carry = carry.select(np.flatnonzero(keep))
                rows = rows[keep]
            self.model_seconds += after - before
            self.physics_seconds += time.perf_counter() - after
            self.forwards += 1
            if progress is not None:
                progress(self._share())
        return Rollout(
            episodes=self.finished,
            model_seconds=self.model_seconds,
            physics_seconds=self.physics_seconds,
            total_seconds=time.perf_counter() - started,
            steps=self.steps,
            forwards=self.forwards,
        )

    def _begin(self, slots: np.ndarray) -> np.ndarray:
        """Start the next episode of these slots; returns those that have one running."""
        running: list[int] = []
        pending = [int(slot) for slot in slots]
        while pending:
            pending = [s for s in pending if len(self.finished[s]) < len(self.seeds[s])]
            mask = np.zeros(len(self.seeds), bool)
            mask[pending] = True
            following = np.zeros(len(self.seeds), np.int64)
            for slot in pending:
                following[slot] = self.seeds[slot][len(self.finished[slot])]
            self.current = self.environment.reset(mask, seeds=following)
            self.returns[mask] = 0.0
            self.lengths[mask] = 0
            broken = [slot for slot in pending if slot in self.environment.failures]
            for slot in broken:
                self._finish(slot, failure=self.environment.failures[slot])
            started = [slot for slot in pending if slot not in broken]
            if self.recorder is not None:
                self.recorder.begin(started, self.current.observation)
            running += started
            pending = broken
        return np.array(sorted(running), np.int64)

    def _advance(self, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Step the slots `rows` (M,); returns (M,) bool, True where a slot goes on."""
        count, size = len(self.seeds), len(rows)
        sound = np.isfinite(actions.reshape(size, -1)).all(axis=1)
        active = np.zeros(count, bool)
        active[rows[sound]] = True
        if size == count:
            spread = actions
        else:
            spread = np.zeros((count, *actions.shape[1:]), actions.dtype)
            spread[rows] = actions
        self.current = self.environment.step(spread, active=active)
        self.returns[active] += self.current.reward[active]
        self.lengths[active] += 1
        self.steps += int(active.sum())
        if self.recorder is not None:
            self.recorder.add(rows[sound], spread, self.current)
        failures = {int(slot): "the policy's action is not finite" for slot in rows[~sound]}
        failures |= self._unsound(rows[sound])
        ended = active & (self.current.terminated | self.current.truncated)
        over = sorted({*failures, *np.flatnonzero(ended).tolist()})
        for slot in over:
            self._finish(slot, failure=failures.get(slot, ""))
        if not over:
            return np.ones(size, bool)
        running = self._begin(np.array(over))
        return np.asarray(~np.isin(rows, np.setdiff1d(over, running)))

    def _unsound(self, slots: np.ndarray) -> dict[int, str]:
        """Slots whose environment raised or gave a reward or an observation that is not finite."""
        current, raised = self.current, self.environment.failures
        failures = {int(slot): raised[slot] for slot in slots if slot in raised}
        leaves = observation_leaves(current.observation)
        columns = [np.isfinite(current.reward)]
        columns += [
            np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
            for rows in leaves.values()
            if rows.dtype.kind == "f"
        ]
        finite = np.logical_and.reduce(columns)
        for slot in slots[~finite[slots]]:
            failures.setdefault(int(slot), "the environment's reward or observation is not finite")
        return failures

    def _finish(self, slot: int, *, failure: str) -> None:
        number, current = len(self.finished[slot]), self.current
        if failure:
            failure = f"{failure} (step {int(self.lengths[slot])})"
        record = EpisodeRecord(
            slot=slot,
            number=number,
            seed=self.seeds[slot][number],
            episode_return=float(self.returns[slot]),
            length=int(self.lengths[slot]),
            terminated=bool(current.terminated[slot]) and not failure,
            truncated=bool(current.truncated[slot]) and not failure,
            failure=failure,
        )
        if self.recorder is not None and not failure:
            record = replace(record, trajectory=self.recorder.trajectory(slot, record))
        self.finished[slot].append(record)

    def _checked(self, actions: np.ndarray, size: int) -> np.ndarray:
        space = self.environment.action_space
        shape = (size, *space.shape)  # type: ignore[union-attr]
        if np.shape(actions) != shape:
            raise EnvironmentFault(
                f"{self.environment.env_id}: the policy gave actions of shape {np.shape(actions)}, "
                f"the environment takes {shape}"
            )
        dtype = action_dtype(space)
        return np.asarray(actions, dtype if dtype.kind == "f" else None)

    def _share(self) -> float:
        """Steps done over steps at most, where there is a time limit; else episodes."""
        total = sum(len(row) for row in self.seeds)
        done = float(sum(len(row) for row in self.finished))
        limit = self.environment.max_episode_steps
        if limit:
            running = [len(f) < len(s) for f, s in zip(self.finished, self.seeds, strict=True)]
            done += float(self.lengths[running].sum()) / limit
        return done / max(total, 1)


@dataclass
class _Recorder:
    """Rows of the running episodes, slot by slot."""

    count: int
    rows: list[dict[str, list[np.ndarray]]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [{} for _ in range(self.count)]

    def begin(self, slots: Sequence[int], observation: Observation) -> None:
        for slot in slots:
            names = observation_leaves(observation)
            self.rows[slot] = {name: [leaf[slot]] for name, leaf in names.items()}
            self.rows[slot] |= {"actions": [], "rewards": []}

    def add(self, slots: np.ndarray, actions: np.ndarray, step: Step) -> None:
        columns = {
            **observation_leaves(step.observation),
            "actions": actions,
            "rewards": step.reward,
        }
        for slot in slots:
            for name, column in columns.items():
                self.rows[slot][name].append(column[slot])

    def trajectory(self, slot: int, record: EpisodeRecord) -> Trajectory:
        return Trajectory(
            columns={name: np.stack(rows) for name, rows in self.rows[slot].items()},
            terminated=record.terminated,
            truncated=record.truncated,
            seed=record.seed,
        )


def observation_leaves(observation: Observation) -> Mapping[str, np.ndarray]:
    """The observation's arrays by their column names, `observations` or `observations/NAME`."""
    if isinstance(observation, Mapping):
        return {f"observations/{name}": leaf for name, leaf in observation.items()}
    return {"observations": observation}
