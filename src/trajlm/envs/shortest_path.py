"""Shortest paths in a fixed random graph: the Decision Transformer's first picture.

After Chen et al. 2021 (arXiv 2106.01345, figure 2 and appendix), whose graph was not published.
`trajlm/ShortestPath-v0`:

- 20 nodes; each ordered pair is an edge with probability 0.1, drawn once for all by `GRAPH_SEED`,
  the first seed whose graph leads from every node to the goal and has shortest paths of up to 6
  steps. The goal is node 19. An episode starts at one of the other 19, drawn by its seed.
- Actions: the node to go to. Where no edge leads there, the agent stays.
- Observation: the node the agent is at.
- Reward: -1 a step, so that the return of an episode that arrives is minus the length of its path,
  and 10 less at the tenth step where that does not arrive: without it, the last steps of an episode
  that is cut would have the returns-to-go of one that arrives.
- The end: termination at the goal, truncation after 10 steps. SUCCESS is to arrive; the path is
  optimal where it is as long as the shortest one. An episode that never arrives has the return -20.
- Scores over 20,000 and 2,000 episodes: actions drawn evenly arrive in 0.016, walks along edges
  drawn evenly in 0.160 (0.050 of all are shortest paths), the oracle in 1.000, all shortest paths
  (`python scripts/worlds.py`).

Legend: H, W a picture's height and width in pixels.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

import gymnasium
import numpy as np

from trajlm.envs.cells import BLACK, BLUE, GREEN, GREY, WHITE, disc, line

ENV_ID = "trajlm/ShortestPath-v0"
NUM_NODES = 20
GOAL = NUM_NODES - 1
NUM_STEPS = 10
LATE = -1.0 - NUM_STEPS
"""The reward of the last step of an episode that does not arrive."""
EDGE_SHARE = 0.1
GRAPH_SEED = 77


class ShortestPath(gymnasium.Env[np.int64, np.int64]):
    """See the module. `info` holds `distance`, the shortest path's steps from here to the goal."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Discrete(NUM_NODES)
        self.action_space = gymnasium.spaces.Discrete(NUM_NODES)
        self.edges, self.distances = edges(), distances()
        self.node, self.steps = 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        super().reset(seed=seed)
        self.node, self.steps = int(self.np_random.integers(GOAL)), 0
        return np.int64(self.node), self._info()

    def step(self, action: Any) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        if self.edges[self.node, int(action)]:
            self.node = int(action)
        self.steps += 1
        arrived = self.node == GOAL
        late = self.steps >= NUM_STEPS and not arrived
        return np.int64(self.node), LATE if late else -1.0, arrived, late, self._info()

    def _info(self) -> dict[str, Any]:
        return {"distance": int(self.distances[self.node])}

    def render(self) -> np.ndarray | None:
        """(320, 320, 3) uint8: the nodes on a circle, the goal green, the agent blue."""
        return picture(self.node) if self.render_mode == "rgb_array" else None


@cache
def edges() -> np.ndarray:
    """(20, 20) bool: whether an edge leads from the row's node to the column's. Not to be written."""
    drawn = np.random.default_rng(GRAPH_SEED).random((NUM_NODES, NUM_NODES)) < EDGE_SHARE
    np.fill_diagonal(drawn, False)
    drawn.setflags(write=False)
    return drawn


@cache
def distances() -> np.ndarray:
    """(20,) int64: steps of a shortest path from each node to the goal. Not to be written."""
    found = np.full(NUM_NODES, NUM_NODES)
    found[GOAL] = 0
    waiting = deque([GOAL])
    while waiting:
        node = waiting.popleft()
        for before in np.flatnonzero(edges()[:, node]):
            if found[before] == NUM_NODES:
                found[before] = found[node] + 1
                waiting.append(int(before))
    found.setflags(write=False)
    return found


def oracle(node: int) -> int:
    """The next node of a shortest path to the goal."""
    ahead = np.flatnonzero(edges()[node])
    return int(ahead[distances()[ahead].argmin()])


def picture(node: int) -> np.ndarray:
    """The graph with the agent at `node`: (320, 320, 3) uint8."""
    image = np.full((320, 320, 3), WHITE, np.uint8)
    angles = 2 * np.pi * np.arange(NUM_NODES) / NUM_NODES
    places = np.stack([160 - 140 * np.cos(angles), 160 + 140 * np.sin(angles)], axis=1)
    for start, end in zip(*np.nonzero(edges()), strict=True):
        line(image, tuple(places[start]), tuple(places[end]), GREY)
    for number, (row, column) in enumerate(places):
        disc(image, row, column, 12, BLACK)
        disc(image, row, column, 10, GREEN if number == GOAL else WHITE)
    disc(image, places[node][0], places[node][1], 6, BLUE)
    return image
