"""Mazes of square cells: where they are free, where they lie, and the shortest way through them.

Legend: a cell is (row, column), a place (x, y); rows run downwards, y upwards, as in
Gymnasium-Robotics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Cell = tuple[int, int]
MAZES: Mapping[str, str] = {
    "pointmaze-umaze": "trajlm/PointMaze_UMaze-v3",
    "pointmaze-medium": "trajlm/PointMaze_Medium-v3",
    "pointmaze-large": "trajlm/PointMaze_Large-v3",
}
"""Environments by the names that their datasets have."""
_NEIGHBOURS = ((-1, 0), (0, 1), (1, 0), (0, -1))


@dataclass(frozen=True, kw_only=True)
class MazeMap:
    """`walls` (rows, columns): 1 where a wall fills a cell. A cell has sides of `side`; the map's
    middle is the origin."""

    walls: tuple[tuple[int, ...], ...]
    side: float = 1.0

    @classmethod
    def of(cls, environment: Any) -> MazeMap:
        """The map of a maze of Gymnasium-Robotics. Marked cells of it are free."""
        maze = environment.unwrapped.maze
        walls = tuple(tuple(int(cell == 1) for cell in row) for row in maze.maze_map)
        return cls(walls=walls, side=float(maze.maze_size_scaling))

    @property
    def free(self) -> list[Cell]:
        """The cells without a wall, row by row."""
        return [
            (row, column)
            for row, cells in enumerate(self.walls)
            for column, wall in enumerate(cells)
            if not wall
        ]

    @property
    def width(self) -> float:
        return len(self.walls[0]) * self.side

    @property
    def height(self) -> float:
        return len(self.walls) * self.side

    def centre(self, cell: Cell) -> np.ndarray:
        """(2,): the middle of a cell."""
        row, column = cell
        x = (column + 0.5) * self.side - self.width / 2
        return np.array([x, self.height / 2 - (row + 0.5) * self.side])

    def cell_of(self, place: Sequence[float] | np.ndarray) -> Cell:
        """The cell that a place lies in."""
        row = np.floor((self.height / 2 - place[1]) / self.side)
        column = np.floor((place[0] + self.width / 2) / self.side)
        return int(row), int(column)

    def way(self, start: Cell, end: Cell) -> list[Cell]:
        """The cells of a shortest way, both ends among them, by breadth-first search.

        Raises `ValueError` where there is none.
        """
        before: dict[Cell, Cell] = {end: end}
        waiting = deque([end])
        free = set(self.free)
        while waiting and start not in before:
            row, column = waiting.popleft()
            for down, right in _NEIGHBOURS:
                cell = (row + down, column + right)
                if cell in free and cell not in before:
                    before[cell] = (row, column)
                    waiting.append(cell)
        if start not in before or not {start, end} <= free:
            raise ValueError(f"no way from {start} to {end}")
        cells = [start]
        while cells[-1] != end:
            cells.append(before[cells[-1]])
        return cells
