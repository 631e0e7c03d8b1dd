"""Ways through mazes: which are walked by a model, how they are drawn, and who reaches the goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.reproduce import picture
from trajlm.reproduce.score_tables import share_reached

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN_FROM = 200_000
"""Where the seeds of drawn episodes begin, so that none is among those that are counted."""
DATA, TRUE_MAZE = "the data's walks", "true maze"


def row_of(
    maze: str, recipe: str, reached: Sequence[Sequence[float]], *, guide: str | None = None
) -> dict[str, Any]:
    """A row of the results; `reached` holds each episode's return, which is its success."""
    return {"maze": maze, "recipe": recipe, "guide": guide, **share_reached(reached)}


def walks_in(data: str, *, drawn: int) -> dict[str, Any]:
    """Which episodes of a dataset reach their goals, and every second place of the first few."""
    from trajlm.data.load import load_dataset

    store = load_dataset(data).finished
    places = [store.rows("observations/achieved_goal", n) for n in range(min(drawn, len(store)))]
    return {
        "reached": [float(reached) for reached in store.returns > 0.0],
        "steps": store.num_steps,
        "ways": [rounded(each[::2]) for each in places],
    }


def walls_of(maze: str) -> Any:
    """The maze's walls, rows of 1 (a wall) and 0."""
    from trajlm.envs.make import make_environment
    from trajlm.envs.maze_map import MAZES, MazeMap

    environment = make_environment(MAZES[maze])
    walls = [list(row) for row in MazeMap.of(environment).walls]
    environment.close()
    return walls


def ways_of(run: Path, *, guide: Path | None, maze: str, number: int) -> list[dict[str, Any]]:
    """`number` episodes of the last checkpoint of a run, guided by the critic of another: the path
    (T+1, 2), the goal, and whether it was reached. Their goals lie far away."""
    from trajlm.envs.maze_map import MAZES
    from trajlm.evaluation.rollout import rollout
    from trajlm.runs.folder import read_run
    from trajlm.runs.guide import load_guide
    from trajlm.training.checkpoint import load_artefact

    model = load_artefact(run)
    critic = None if guide is None else load_guide(guide, model=model).critic
    seeds = far_apart(maze, number)
    policy = model.policy(read_run(run).policy, guide=critic)
    found = rollout(policy, env_id=MAZES[maze], seeds=[[seed] for seed in seeds], record=True)
    walked = []
    for (record,) in found.episodes:
        assert record.trajectory is not None
        columns = record.trajectory.columns
        walked.append(
            {
                "path": rounded(columns["observations/achieved_goal"]),
                "goal": rounded(columns["observations/desired_goal"][0]),
                "reached": record.terminated,
            }
        )
    return walked


def far_apart(maze: str, number: int) -> list[int]:
    """Of four times `number` seeds, those whose goals lie the most cells away."""
    from trajlm.envs.make import make_environment
    from trajlm.envs.maze_map import MAZES, MazeMap

    environment = make_environment(MAZES[maze])
    there = MazeMap.of(environment)
    lengths = {}
    for seed in range(DRAWN_FROM, DRAWN_FROM + 4 * number):
        observation, _ = environment.reset(seed=seed)
        start, end = (
            there.cell_of(observation[name]) for name in ("achieved_goal", "desired_goal")
        )
        lengths[seed] = len(there.way(start, end))
    environment.close()
    return sorted(lengths, key=lambda seed: -lengths[seed])[:number]


def rounded(places: np.ndarray) -> Any:
    return np.asarray(places, np.float64).round(2).tolist()


# ---- the picture ------------------------------------------------------------------------------


def draw_map(axes: Axes, walls: Sequence[Sequence[int]], walks: Sequence[Any]) -> None:
    """The walls, over walks of the data."""
    from matplotlib.patches import Rectangle

    height, width = len(walls), len(walls[0])
    for places in walks:
        axes.plot(*zip(*places, strict=True), color=picture.GRID, linewidth=0.7, zorder=0)
    for row, cells in enumerate(walls):
        for column, wall in enumerate(cells):
            if wall:
                corner = (column - width / 2, height / 2 - row - 1)
                axes.add_patch(Rectangle(corner, 1, 1, color=picture.MUTED, linewidth=0, zorder=1))
    axes.set(xlim=(-width / 2, width / 2), ylim=(-height / 2, height / 2), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def draw_way(axes: Axes, way: Mapping[str, Any], colour: str) -> None:
    """A way walked from its start (a disc) to its goal (a star); a cross where it ended elsewhere."""
    axes.plot(*zip(*way["path"], strict=True), color=colour, linewidth=1.5, zorder=3)
    axes.plot(*way["path"][0], "o", color=colour, markersize=7, markeredgecolor="white", zorder=4)
    axes.plot(*way["goal"], "*", color=colour, markersize=14, markeredgecolor="white", zorder=5)
    if not way["reached"]:
        axes.plot(*way["path"][-1], "X", color=picture.INK, markersize=8, zorder=6)


def draw_bars(axes: Axes, rows: Sequence[Mapping[str, Any]], *, named: bool) -> None:
    """A bar of success for each row, with its interval and its seeds as crosses; `named`: with
    the rows' names."""
    for at, row in enumerate(rows):
        beside = row["recipe"] in (DATA, TRUE_MAZE)
        colour = picture.DATA if beside else picture.SERIES[at % len(picture.SERIES)]
        axes.barh(at, 100 * row["success"], color=colour, height=0.65)
        if row["interval"] is not None:
            axes.plot([100 * end for end in row["interval"]], [at, at], color=picture.INK)
        if len(row["seeds"]) > 1:
            axes.plot([100 * each for each in row["seeds"]], [at] * len(row["seeds"]), "x",
                      color=picture.INK, markersize=4)  # fmt: skip
    names = [row["name"] for row in rows] if named else [""] * len(rows)
    axes.set_yticks(range(len(rows)), names)
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5), xlabel="goals reached, percent")
