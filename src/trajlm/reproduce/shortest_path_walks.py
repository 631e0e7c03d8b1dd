"""Paths through the graph of `trajlm/ShortestPath-v0`: of the data, of a run, and drawn.

A path is (start, steps, shortest): steps to the goal, 0 where it was not reached, and the least.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.reproduce import picture
from trajlm.reproduce.taking_part import algorithm_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENV_ID = "trajlm/ShortestPath-v0"
PathFacts = tuple[int, int, int]


def write(root: Path, count: int) -> Path:
    """`count` walks along edges drawn evenly."""
    from trajlm.collect.walks import write_walks
    from trajlm.envs.shortest_path import edges

    ahead = [np.flatnonzero(row) for row in edges()]
    return write_walks(
        lambda generator, node: int(generator.choice(ahead[int(node)])), env_id=ENV_ID, count=count,
        dataset_id="trajlm/shortest-path/walks-v0", root=root, behaviour="edges drawn evenly",
    )  # fmt: skip


def facts_of(data: str) -> dict[str, Any]:
    """The paths of a dataset's walks, and from how many starts none of them is a shortest one."""
    from trajlm.data.load import load_dataset
    from trajlm.envs.shortest_path import GOAL, distances

    store = load_dataset(data)
    paths = []
    for episode in range(len(store)):
        start = int(store.rows("observations", episode)[0])
        steps = int(store.lengths[episode]) if store.terminated[episode] else 0
        paths.append((start, steps, int(distances()[start])))
    solved = {start for start, steps, shortest in paths if steps == shortest}
    return {"paths": paths, "without": GOAL - len(solved)}


def best_paths() -> list[PathFacts]:
    """A shortest path from every node but the goal."""
    from trajlm.envs.shortest_path import GOAL, distances

    return [(node, int(distances()[node]), int(distances()[node])) for node in range(GOAL)]


def evaluated(run: Path) -> list[PathFacts]:
    """The paths of a run's evaluation."""
    from trajlm.envs.make import make_environment

    environment = make_environment(ENV_ID)
    paths = []
    (file,) = run.glob("eval/*/episodes.csv")
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            start, info = environment.reset(seed=int(line["seed"]))
            steps = int(line["length"]) if int(line["terminated"]) else 0
            paths.append((int(start), steps, int(info["distance"])))
    return paths


def walked(run: Path, data: str) -> dict[str, Any]:
    """A run's own paths from every start, how many are shortest, and how many of these no walk holds.

    `longest`: the nodes of the shortest path from furthest away, None where there is none.
    """
    from trajlm.data.load import load_dataset
    from trajlm.envs.shortest_path import GOAL, distances
    from trajlm.evaluation.rollout import rollout
    from trajlm.runs.folder import read_run
    from trajlm.training.checkpoint import artefact_folder, load_artefact

    config, store = read_run(run), load_dataset(data)
    model = load_artefact(artefact_folder(run, which="last")).eval()
    seeds = list(seeds_of_starts(GOAL).values())
    done = rollout(
        model.policy(config.policy), seeds=[[seed] for seed in seeds], env_id=ENV_ID, record=True
    )
    walks = [tuple(store.rows("observations", k).tolist()) for k in range(len(store))]
    found = []
    for (record,) in done.episodes:
        if record.terminated and record.trajectory is not None:
            nodes = tuple(int(node) for node in record.trajectory.columns["observations"])
            if len(nodes) == distances()[nodes[0]] + 1:
                found.append(nodes)
    new = [nodes for nodes in found if not any(holds(walk, nodes) for walk in walks)]
    return {
        "recipe": config.recipe,
        "optimal": len(found),
        "new": len(new),
        "longest": list(sorted(new or found, key=len)[-1]) if found else None,
        "longest_is_new": bool(new),
    }


def seeds_of_starts(count: int) -> dict[int, int]:
    """The first seed that starts at each of the nodes 0 to `count` - 1."""
    from trajlm.envs.make import make_environment

    environment, found, seed = make_environment(ENV_ID), dict[int, int](), 0
    while len(found) < count:
        found.setdefault(int(environment.reset(seed=seed)[0]), seed)
        seed += 1
    return found


def holds(walk: Sequence[int], nodes: Sequence[int]) -> bool:
    """Whether `nodes` stand in `walk` one after another."""
    size = len(nodes)
    return any(tuple(walk[at : at + size]) == tuple(nodes) for at in range(len(walk) - size + 1))


def graph() -> dict[str, Any]:
    """The graph as plain data: its edges, and each node's distance to the goal."""
    from trajlm.envs.shortest_path import distances, edges

    return {
        "edges": np.argwhere(edges()).tolist(),
        "distances": distances().tolist(),
    }


def draw_graph(axes: Axes, found: Mapping[str, Any], paths: Mapping[str, Any]) -> None:
    """Nodes in columns by their distance to the goal, and the longest shortest path that was taken."""
    distances = np.array(found["distances"])
    places = {}
    for distance in range(distances.max() + 1):
        column = np.flatnonzero(distances == distance)
        for row, node in enumerate(column.tolist()):
            bend = 0.12 * (-1) ** row
            places[node] = (-distance + bend, row - (len(column) - 1) / 2)
    taken = paths["longest"] or []
    on_path = set(zip(taken[:-1], taken[1:], strict=True))
    for start, end in found["edges"]:
        own = (start, end) in on_path
        style = {
            "arrowstyle": "-|>", "shrinkA": 9, "shrinkB": 9, "connectionstyle": "arc3,rad=0.14",
            "color": picture.SERIES[0] if own else picture.DATA, "linewidth": 2.4 if own else 0.8,
            "mutation_scale": 13 if own else 8,
        }  # fmt: skip
        axes.annotate("", places[end], places[start], arrowprops=style, zorder=2 if own else 1)
    for node, (x, y) in sorted(places.items()):
        goal = distances[node] == 0
        edge = picture.SERIES[0] if node in taken else picture.INK
        face = picture.SERIES[2] if goal else "white"
        axes.plot(x, y, "o", markersize=17, markerfacecolor=face, markeredgecolor=edge, zorder=3)
        colour = "white" if goal else picture.INK
        axes.text(x, y, str(node), ha="center", va="center", fontsize=8, color=colour, zorder=4)
    ticks = range(distances.max() + 1)
    axes.set_xticks([-d for d in ticks], ["goal" if d == 0 else str(d) for d in ticks])
    axes.set_xlabel("steps to the goal at least")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.margins(0.07)
    if taken:
        new = "; part of no walk" if paths["longest_is_new"] else ""
        axes.set_title(f"A path of the {algorithm_title(paths['recipe'])}{new}")
    else:
        axes.set_title("The graph")
