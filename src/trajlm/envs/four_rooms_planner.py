"""Shortest ways through the doors of the four rooms, and a planner that walks them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from trajlm.envs.four_rooms import (
    DOOR_WIDTH,
    DOORS,
    LONGEST_STEP,
    MIDDLE,
    Point,
    room_of,
)

_MARGIN = 0.3
"""Ways keep this far from a door's jambs."""
_SWEEPS = 4


def shortest_way(start: Point, goal: Point) -> list[Point]:
    """Start, a crossing of each door on the way, goal: the shorter of the two ways round the ring
    where the rooms lie across from each other."""
    ways = [_taut(start, doors, goal) for doors in _doors_between(room_of(start), room_of(goal))]
    return min(ways, key=length_of)


def length_of(points: Sequence[Point]) -> float:
    return sum(map(math.dist, points[:-1], points[1:]))


def towards(position: Point, goal: Point, *, speed: float = LONGEST_STEP) -> np.ndarray:
    """The displacement (2,) of length `speed` along the shortest way; at the goal, no further."""
    corners = [corner for corner in shortest_way(position, goal)[1:] if corner != position]
    if not corners:
        return np.zeros(2)
    (x, y), distance = corners[0], math.dist(corners[0], position)
    # Through a door it does not stop at the crossing.
    reach = min(speed, distance) if len(corners) == 1 else speed
    return np.array([x - position[0], y - position[1]]) * (reach / distance)


@functools.cache
def _doors_between(first: int, last: int) -> list[list[tuple[int, int]]]:
    """The doors of each way from room to room that enters no room twice; of neighbours, one."""
    if first == last:
        return [[]]
    if (min(first, last), max(first, last)) in DOORS:
        return [[(min(first, last), max(first, last))]]
    return [
        [(min(first, by), max(first, by)), (min(by, last), max(by, last))]
        for by in range(4)
        if by not in (first, last)
    ]


def _taut(start: Point, doors: list[tuple[int, int]], goal: Point) -> list[Point]:
    """The way pulled tight: each crossing in turn where the straight line between its neighbours
    meets the doorway, until nothing moves."""
    points = [start, *(DOORS[door] for door in doors), goal]
    for _ in range(_SWEEPS if len(doors) > 1 else len(doors)):
        for place, door in enumerate(doors, 1):
            points[place] = _crossing(points[place - 1], points[place + 1], DOORS[door])
    return points


def _crossing(before: Point, after: Point, door: Point) -> Point:
    across = 0 if door[0] == MIDDLE else 1
    along = 1 - across
    gap = after[across] - before[across]
    share = 0.5 if gap == 0.0 else (MIDDLE - before[across]) / gap
    met = before[along] + share * (after[along] - before[along])
    half = DOOR_WIDTH / 2 - _MARGIN
    kept = min(max(met, door[along] - half), door[along] + half)
    return (MIDDLE, kept) if across == 0 else (kept, MIDDLE)
