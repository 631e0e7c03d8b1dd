"""A point in four rooms: a continuous world for reaching goals.

`trajlm/FourRooms-v0` shows the position alone and tells the goal in `info["goal"]`, where
`VectorEnvironment` takes it for policies that are asked for a goal. `trajlm/FourRoomsGoal-v0` is the
same world with the goal in the observation, for policies that only observe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]
"""(left, bottom, right, top)."""

ENV_ID, GOAL_ENV_ID = "trajlm/FourRooms-v0", "trajlm/FourRoomsGoal-v0"
SIDE = 10.0
LONGEST_STEP = 0.5
"""Of a displacement, along each axis."""
SUCCESS_RADIUS = 0.5
STEP_LIMIT = 60
ROOMS = ("south-west", "south-east", "north-west", "north-east")
MIDDLE, THICKNESS, DOOR_WIDTH = 5.0, 0.4, 1.4
DOORS: dict[tuple[int, int], Point] = {
    (0, 1): (MIDDLE, 3.0),
    (2, 3): (MIDDLE, 8.0),
    (0, 2): (2.0, MIDDLE),
    (1, 3): (7.5, MIDDLE),
}
"""The middle of the door between two rooms."""
_CLEARANCE = 0.3
"""Between a wall and a start or a goal."""
_SKIN = 1e-3
"""The point stops this far from a wall, so that rounding to float32 leaves it outside."""
_PIXELS = 256


def _walls() -> tuple[Rectangle, ...]:
    """What the doors leave of the two walls that cross in the middle."""
    low, high = MIDDLE - THICKNESS / 2, MIDDLE + THICKNESS / 2
    upright = [(low, a, high, b) for a, b in _between_doors(DOORS[0, 1][1], DOORS[2, 3][1])]
    level = [(a, low, b, high) for a, b in _between_doors(DOORS[0, 2][0], DOORS[1, 3][0])]
    return (*upright, *level)


def _between_doors(first: float, second: float) -> list[Point]:
    half = DOOR_WIDTH / 2
    return [(0.0, first - half), (first + half, second - half), (second + half, SIDE)]


WALLS = _walls()


class FourRooms(gymnasium.Env[np.ndarray, np.ndarray]):
    """Four rooms of a square with side 10, joined in a ring by four doors of width 1.4.

    Observation: the position (x, y), float32. Action: a displacement (2,), within 0.5 along each
    axis; what is beyond is cut off. The point slides along walls and never passes through one,
    however long the displacement.
    Start and goal are drawn at reset, evenly over the floor (0.3 from walls, more than the success
    radius apart); `reset(options={"start": (x, y), "goal": (x, y)})` sets either. `info["goal"]`
    (2,) float32 tells the goal, at reset and at every step.
    Success: within 0.5 of the goal after a step. The episode then terminates with the reward 1; every
    other reward is 0, so an episode's return is its success. Truncated after 60 steps, about twice
    what the longest way needs.
    Mean return over the episodes with seeds 0 to 999: actions drawn evenly from the space 0.08, the
    planner of `envs/four_rooms_planner.py` 1.00 in 10.5 steps (24 at most).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, *, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0.0, SIDE, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-LONGEST_STEP, LONGEST_STEP, (2,), np.float32)
        self.position: Point = (0.0, 0.0)
        self.goal: Point = (0.0, 0.0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        given = options or {}
        self.position = _on_floor(self.np_random)
        self.goal = _on_floor(self.np_random)
        while math.dist(self.position, self.goal) <= SUCCESS_RADIUS:
            self.goal = _on_floor(self.np_random)
        for name in ("start", "goal"):
            if name in given:
                point = (float(given[name][0]), float(given[name][1]))
                if not is_free(point):
                    raise ValueError(f"{name} {point} is not on the floor of the four rooms")
                setattr(self, {"start": "position"}.get(name, name), point)
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        dx, dy = (min(max(float(d), -LONGEST_STEP), LONGEST_STEP) for d in action)
        self.position = way(self.position, (dx, dy))[-1]
        reached = math.dist(self.position, self.goal) <= SUCCESS_RADIUS
        return self._observation(), float(reached), reached, False, self._info()

    def render(self) -> np.ndarray | None:
        """The map as (256, 256, 3) uint8, north above: walls dark, the goal a ring, the point a disc."""
        if self.render_mode is None:
            return None
        centres = (np.arange(_PIXELS) + 0.5) * SIDE / _PIXELS
        x, y = centres[None, :], centres[::-1, None]
        picture = np.full((_PIXELS, _PIXELS, 3), 255, np.uint8)
        for left, bottom, right, top in WALLS:
            picture[(x > left) & (x < right) & (y > bottom) & (y < top)] = (70, 70, 70)
        from_goal = np.hypot(x - self.goal[0], y - self.goal[1])
        picture[(from_goal < SUCCESS_RADIUS) & (from_goal > SUCCESS_RADIUS - 0.12)] = (213, 94, 0)
        picture[np.hypot(x - self.position[0], y - self.position[1]) < 0.22] = (0, 114, 178)
        return picture

    def _observation(self) -> np.ndarray:
        return np.array(self.position, np.float32)

    def _info(self) -> dict[str, Any]:
        return {"goal": np.array(self.goal, np.float32)}


class GoalObservation(gymnasium.ObservationWrapper[Any, Any, Any]):
    """The goal that an environment tells at reset, beside what it shows, as a Dict space:
    `observation` and `desired_goal`. A goal is an observation to reach."""

    def __init__(self, environment: gymnasium.Env[Any, Any]) -> None:
        super().__init__(environment)
        space = environment.observation_space
        self.observation_space = gymnasium.spaces.Dict(
            {"observation": space, "desired_goal": space}
        )
        self._goal = np.zeros(0)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        self._goal = info["goal"]
        return self.observation(observation), info

    def observation(self, observation: Any) -> Any:
        return {"observation": observation, "desired_goal": self._goal.copy()}


def goal_observed(**options: Any) -> gymnasium.Env[Any, Any]:
    """The world whose observations hold the goal."""
    return GoalObservation(FourRooms(**options))


# ---- geometry ---------------------------------------------------------------------------------


def room_of(point: Sequence[float] | np.ndarray) -> int:
    """The number of the room in `ROOMS`; a point in a doorway counts to the room it is nearer to."""
    return int(point[0] > MIDDLE) + 2 * int(point[1] > MIDDLE)


def is_free(point: Point, *, clearance: float = 0.0) -> bool:
    """Whether a point lies on the floor, at least `clearance` from the walls along each axis."""
    x, y = point
    if not (clearance <= x <= SIDE - clearance and clearance <= y <= SIDE - clearance):
        return False
    return not any(
        left - clearance < x < right + clearance and bottom - clearance < y < top + clearance
        for left, bottom, right, top in WALLS
    )


def way(start: Point, displacement: Point) -> list[Point]:
    """The corners of the way from `start` along a displacement, the end among them.

    At a wall the part of the displacement that leads into it is dropped, and the rest goes on along
    the wall.
    """
    corners, (x, y), (dx, dy) = [start], start, displacement
    for _ in range(3):
        share, axis, contact = _first_contact(x, y, dx, dy)
        x, y = x + share * dx, y + share * dy
        dx, dy = (1 - share) * dx, (1 - share) * dy
        if axis == 0:
            x, dx = contact, 0.0
        elif axis == 1:
            y, dy = contact, 0.0
        corners.append((x, y))
        if axis < 0 or dx == dy == 0.0:
            break
    return corners


def _first_contact(x: float, y: float, dx: float, dy: float) -> tuple[float, int, float]:
    """The share of the displacement before the first wall, the axis across that wall (-1: there is
    none) and the coordinate at which the point stops."""
    found = (1.0, -1, 0.0)
    for axis, (place, shift) in enumerate(((x, dx), (y, dy))):
        edge = SIDE if shift > 0 else 0.0
        if shift != 0.0 and (edge - place) / shift < found[0]:
            found = (max(0.0, (edge - place) / shift), axis, edge)
    for left, bottom, right, top in WALLS:
        spans = ((x, dx, left - _SKIN, right + _SKIN), (y, dy, bottom - _SKIN, top + _SKIN))
        enters, leaves, across, contact = -math.inf, math.inf, -1, 0.0
        for axis, (place, shift, low, high) in enumerate(spans):
            if shift == 0.0:
                if not low < place < high:
                    leaves = -math.inf
                continue
            near, far = (low, high) if shift > 0 else (high, low)
            if (near - place) / shift > enters:
                enters, across, contact = (near - place) / shift, axis, near
            leaves = min(leaves, (far - place) / shift)
        if 0.0 <= enters < min(leaves, found[0]):
            found = (enters, across, contact)
    return found


def _on_floor(generator: np.random.Generator) -> Point:
    while True:
        x, y = generator.uniform(0.0, SIDE, 2).tolist()
        if is_free((x, y), clearance=_CLEARANCE):
            return x, y
