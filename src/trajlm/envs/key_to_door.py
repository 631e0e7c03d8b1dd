"""Key-to-Door: a key in the first room decides what the door in the third is worth.

After Mesnard et al. 2020 (arXiv 2011.09464) and Chen et al. 2021 (arXiv 2106.01345),
whose environments were not published. `trajlm/KeyToDoor-v0`:

- Three rooms of 5 x 5 cells, 8 steps in each, whatever happens there; then the agent stands in the
  next room. An episode has 24 steps. In the first room lies the key, in the second three apples
  that are worth nothing, in the third is the door. What is walked onto is taken or entered and gone
  from view. Key, apples, door and the agent's three places of departure are drawn anew by each seed.
- Actions: north, east, south, west. A wall stops the agent.
- Observation: five integers. What the nearest thing in this room is (0 nothing, 1 key, 2 apple,
  3 door); how far south and how far east of the agent it is (4 is level; 9 where there is nothing);
  the agent's row and column. WHETHER THE KEY IS HELD IS NOT SHOWN, nor which room this is or how
  many steps are left. To act well, nothing need be remembered (the door is worth a try in any
  case); to know in the third room what an episode will be worth, one must remember the first.
- Reward: 1 with the last step where the key was taken and the door entered, else 0. That is success.
- The end: termination after 24 steps; there is no truncation.
- Scores over 20,000 and 2,000 episodes: random actions 0.034, a walk straight to what is nearest
  1.000 (`python scripts/worlds.py`). No start is further than 8 steps from the key or the door.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from trajlm.envs.cells import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, WHITE, disc, rectangle

ENV_ID = "trajlm/KeyToDoor-v0"
SIZE = 5
PHASE_STEPS = 8
NUM_ROOMS = 3
NUM_STEPS = NUM_ROOMS * PHASE_STEPS
NUM_APPLES = 3
NOTHING, KEY, APPLE, DOOR = range(4)
LEVEL = SIZE - 1
"""An offset of 0: offsets are counted from the furthest north or west."""
NOWHERE = 2 * SIZE - 1
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""(rows, columns) of north, east, south, west."""
THINGS = (KEY, APPLE, DOOR)


class KeyToDoor(gymnasium.Env[np.ndarray, np.int64]):
    """See the module. `info` tells what the observation does not: `room`, `key`, `door`."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.MultiDiscrete(
            [4, NOWHERE + 1, NOWHERE + 1, SIZE, SIZE]
        )
        self.action_space = gymnasium.spaces.Discrete(4)
        self.things: list[dict[tuple[int, int], int]] = [{} for _ in THINGS]
        self.starts = [(0, 0)] * NUM_ROOMS
        self.place = (0, 0)
        self.steps = 0
        self.key = self.door = False

    @property
    def room(self) -> int:
        """0, 1 or 2; the third also after the last step."""
        return min(self.steps // PHASE_STEPS, NUM_ROOMS - 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        for room, thing in enumerate(THINGS):
            count = NUM_APPLES if thing == APPLE else 1
            cells = self.np_random.choice(SIZE * SIZE, size=count + 1, replace=False)
            self.starts[room], *places = [divmod(int(cell), SIZE) for cell in cells]
            self.things[room] = dict.fromkeys(places, thing)
        self.place = self.starts[0]
        self.steps, self.key, self.door = 0, False, False
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        down, right = MOVES[int(action)]
        row = min(max(self.place[0] + down, 0), SIZE - 1)
        column = min(max(self.place[1] + right, 0), SIZE - 1)
        self.place = (row, column)
        found = self.things[self.room].pop(self.place, NOTHING)
        self.key, self.door = self.key or found == KEY, self.door or found == DOOR
        self.steps += 1
        over = self.steps >= NUM_STEPS
        if self.steps % PHASE_STEPS == 0 and not over:
            self.place = self.starts[self.room]
        reward = float(over and self.key and self.door)
        return self._observation(), reward, over, False, self._info()

    def _observation(self) -> np.ndarray:
        row, column = self.place
        near = min(
            ((abs(r - row) + abs(c - column), r, c) for r, c in self.things[self.room]),
            default=None,
        )
        if near is None:
            return np.array([NOTHING, NOWHERE, NOWHERE, row, column])
        _, r, c = near
        return np.array([THINGS[self.room], r - row + LEVEL, c - column + LEVEL, row, column])

    def _info(self) -> dict[str, Any]:
        return {"room": self.room, "key": self.key, "door": self.door}

    def render(self) -> np.ndarray | None:
        """(112, 352, 3) uint8: the three rooms, the agent with an orange heart once it has the key."""
        if self.render_mode != "rgb_array":
            return None
        return picture(self.things, room=self.room, place=self.place, key=self.key)


def picture(
    things: list[dict[tuple[int, int], int]], *, room: int, place: tuple[int, int], key: bool
) -> np.ndarray:
    """The three rooms, {place: thing} each, and the agent in one of them: (112, 352, 3) uint8."""
    cell, span = 16, (SIZE + 2) * 16
    image = np.full((span, NUM_ROOMS * span + 16, 3), BLACK, np.uint8)
    for number in range(NUM_ROOMS):
        left = 8 + number * span
        ground = WHITE if number == room else GREY
        rectangle(image, cell, left + cell, SIZE * cell, SIZE * cell, ground)
        for (row, column), thing in things[number].items():
            top, start = (row + 1) * cell, left + (column + 1) * cell
            if thing == DOOR:
                rectangle(image, top + 2, start + 2, cell - 4, cell - 4, GREEN)
            else:
                disc(image, top + 8, start + 8, 4, ORANGE if thing == KEY else PURPLE)
    top, start = (place[0] + 1) * cell, 8 + room * span + (place[1] + 1) * cell
    disc(image, top + 8, start + 8, 7, BLUE)
    if key:
        disc(image, top + 8, start + 8, 3, ORANGE)
    return image


def oracle(observation: np.ndarray) -> int:
    """The first step of a straight walk to the nearest thing; north where there is none."""
    thing, south, east = (int(entry) for entry in observation[:3])
    if thing == NOTHING or south < LEVEL:
        return 0
    if south > LEVEL:
        return 2
    return 1 if east > LEVEL else 3
