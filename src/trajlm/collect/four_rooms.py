"""Ways through the four rooms by a noisy planner: recordings of positions, with nothing rewarded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trajlm.core.seeding import derive
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.envs.four_rooms import ENV_ID, LONGEST_STEP, FourRooms, room_of
from trajlm.envs.four_rooms_planner import towards
from trajlm.envs.spaces import from_gymnasium

UNSHOWN = ((0, 3), (3, 0))
"""Rooms (from, to) between which no way is recorded: south-west to north-east and back."""
NOISE = 0.08
"""The standard deviation of what is added to a displacement, along each axis."""
_SPEED = 0.35
_ARRIVED = 0.25
_LONGEST = 100
_STREAM = 0x4F00


def recorded_ways(
    episodes: int,
    *,
    seed: int = 0,
    noise: float = NOISE,
    unshown: Sequence[tuple[int, int]] = UNSHOWN,
) -> TrajectoryStore:
    """A store of `episodes` ways from a random start to a random goal along the shortest way.

    Displacements are 0.35 long, with normal noise along each axis and cut off at the bounds. Pairs of rooms in `unshown` are drawn anew, and so is a way that enters the second of
    them after the first by chance, beside a door. A recording ends within 0.25 of the
    goal and counts as truncated: the goal is not in it, nothing rewards it, and the world goes on.
    """
    world = FourRooms()
    found: list[Trajectory] = []
    draw = 0
    while len(found) < episodes:
        recorded = derive(seed, _STREAM, draw) % 2**31
        draw += 1
        world.reset(seed=recorded)
        if (room_of(world.position), room_of(world.goal)) in unshown:
            continue
        walked = _walk(world, seed=recorded, noise=noise)
        if not _shows(walked, unshown):
            found.append(walked)
    return TrajectoryStore.from_trajectories(
        found,
        observation_space=from_gymnasium(world.observation_space),
        action_space=from_gymnasium(world.action_space),
        env_id=ENV_ID,
        name=f"four-rooms-{episodes}-seed{seed}",
    )


def _walk(world: FourRooms, *, seed: int, noise: float) -> Trajectory:
    """From where the world stands to its goal."""
    generator = np.random.default_rng(seed)
    places, actions = [world.position], list[np.ndarray]()
    while len(actions) < _LONGEST and math.dist(world.goal, places[-1]) > _ARRIVED:
        wanted = towards(world.position, world.goal, speed=_SPEED)
        noisy = wanted + generator.normal(scale=noise, size=2)
        actions.append(np.clip(noisy, -LONGEST_STEP, LONGEST_STEP).astype(np.float32))
        world.step(actions[-1])
        places.append(world.position)
    columns = {
        "observations": np.array(places, np.float32),
        "actions": np.array(actions),
        "rewards": np.zeros(len(actions), np.float32),
    }
    return Trajectory(columns=columns, terminated=False, truncated=True, seed=seed)


def _shows(walked: Trajectory, pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether a way is in the second room of a pair at some time after it was in the first."""
    rooms = [room_of(place) for place in walked.columns["observations"]]
    return any(first in rooms and last in rooms[rooms.index(first) :] for first, last in pairs)
