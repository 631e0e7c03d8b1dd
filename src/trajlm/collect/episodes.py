"""Whole episodes of one behaviour, a batch at a time.

Episode number e of a behaviour always acts in slot e % SLOTS of a batch of SLOTS rows, whichever
other slots run: the matrix products have one shape, so an episode's bits depend on its seed and
its number alone, not on how the episodes are spread over calls and processes.

Legend: T steps of an episode.
"""

from __future__ import annotations

import zlib

import numpy as np

from trajlm.core import seeding
from trajlm.core.protocols import Policy, Step
from trajlm.core.trajectory import Trajectory
from trajlm.envs.vector import VectorEnvironment

SLOTS = 10


def episode_seed(seed: int, *, behaviour: str, episode: int) -> int:
    """The seed of one episode, below 2**53, so that JSON and float64 keep it exactly."""
    return seeding.derive(seed, zlib.crc32(behaviour.encode()), episode) >> 10


def run_episodes(
    policy: Policy,
    environment: VectorEnvironment,
    *,
    behaviour: str,
    seed: int,
    first: int,
    count: int,
) -> list[Trajectory]:
    """Episodes `first, ..., first + count - 1` of `behaviour`, e.g. "halfcheetah/expert".

    `environment` has SLOTS slots; the episodes' slots must be distinct, so they lie within one
    block of SLOTS. An episode keeps observations (T+1, D) float32, the executed actions (T, A)
    and rewards (T,) float64. Raises `EnvironmentFault` where an environment does.
    """
    assert environment.num_envs == SLOTS, environment.num_envs
    assert first // SLOTS == (first + count - 1) // SLOTS, (first, count)
    offset = first % SLOTS
    active = np.zeros(SLOTS, bool)
    active[offset : offset + count] = True
    seeds = np.array(
        [episode_seed(seed, behaviour=behaviour, episode=first - offset + i) for i in range(SLOTS)]
    )
    carry, step = policy.initial(SLOTS), environment.reset(active, seeds=seeds)
    recorded, acted = [step], []
    lengths = np.zeros(SLOTS, np.int64)
    terminated = np.zeros(SLOTS, bool)
    while active.any():
        carry, actions = policy.act(carry, step)
        step = environment.step(actions, active=active)
        acted.append(actions)
        recorded.append(step)
        lengths[active] += 1
        terminated |= active & step.terminated
        active = active & ~(step.terminated | step.truncated)
    return [
        _episode(recorded, acted, slot=slot, length=lengths[slot], terminated=terminated[slot])
        for slot in range(offset, offset + count)
    ]


def _episode(
    recorded: list[Step], acted: list[np.ndarray], *, slot: int, length: int, terminated: bool
) -> Trajectory:
    """One slot's episode. A task that ends at the time limit is terminated, not truncated too."""
    steps = recorded[: length + 1]
    observations = np.stack([_box(step)[slot] for step in steps])
    return Trajectory(
        columns={
            "actions": np.stack([actions[slot] for actions in acted[:length]]),
            "observations": observations.astype(np.float32),
            "rewards": np.array([step.reward[slot] for step in steps[1:]], np.float64),
        },
        terminated=bool(terminated),
        truncated=not terminated,
        seed=int(recorded[0].seed[slot]),
    )


def _box(step: Step) -> np.ndarray:
    assert isinstance(step.observation, np.ndarray)
    return step.observation
