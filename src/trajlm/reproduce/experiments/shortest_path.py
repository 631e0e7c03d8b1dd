"""Do shortest paths come out of random walks? The Decision Transformer's first illustration.

Chen et al. 2021 (arXiv 2106.01345), figure 2 and the appendix on it: 1,000 random walks of 10 steps on
a random graph of 20 nodes, K 10, 3 layers, 1 head. The model predicts returns too and asks for one
that is likely from where it starts, times a prior for high ones (published power 10, here 5), so that
nobody tells it how far the goal is. The graph of the paper was not published; ours is `trajlm/ShortestPath-v0`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.evaluation.scores import bootstrap_interval
from trajlm.reproduce import picture, shortest_path_walks
from trajlm.reproduce.base import Experiment, Findings, Published, Scale, Table
from trajlm.reproduce.context import Context
from trajlm.reproduce.taking_part import algorithm_title, updates_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 10
BEST_CONCEIVABLE = -1.0
"""The most that is asked for: the best walk of the data may be longer than the best from some start."""
ENOUGH = 90.0
"""Percent of the starts with a shortest path from which on "optimal paths" is said to hold."""


def run(context: Context) -> Findings:
    settings = context.settings
    data = context.dataset(
        "trajlm/shortest-path/walks-v0",
        lambda root: shortest_path_walks.write(root, settings["walks"]),
    )
    cells = {
        recipe: [
            context.cell(
                recipe, recipe=recipe, data=data, seed=seed, episodes=settings["episodes"],
                steps=updates_of(recipe, settings["updates"]), targets=(BEST_CONCEIVABLE,),
            )
            for seed in context.seeds
        ]
        for recipe in context.algorithms
    }  # fmt: skip
    context.train([cell for each in cells.values() for cell in each])
    known = shortest_path_walks.facts_of(data)
    rows = [summary("walks in the data", [known["paths"]])]
    for recipe, each in cells.items():
        paths = [shortest_path_walks.evaluated(context.run_of(cell)) for cell in each]
        rows.append(summary(recipe, paths))
    rows.append(summary("shortest", [shortest_path_walks.best_paths()]))
    first = context.run_of(cells[context.algorithms[0]][0])
    drawn = context.part("from-every-node", lambda: shortest_path_walks.walked(first, data))
    return findings(context, rows, drawn, known)


def summary(name: str, seeds: Sequence[Sequence[tuple[int, int, int]]]) -> dict[str, Any]:
    """Shares of paths, each (start, steps, shortest), steps 0 where the goal was not reached.

    `histogram`: percent of paths by their steps, 1 to 10, then of those that never arrive.
    `optimal`: percent of shortest paths, every start counted alike.
    """
    optimal, shares = [], []
    for paths in seeds:
        start, steps, shortest = np.array(paths).T
        each = [
            np.mean(steps[start == node] == shortest[start == node]) for node in np.unique(start)
        ]
        optimal.append(100.0 * float(np.mean(each)))
        counts = np.bincount(steps, minlength=LONGEST + 1) / len(steps)
        shares.append(100.0 * np.append(counts[1:], counts[0]))
    arrived = [100.0 - share[-1] for share in shares]
    return {
        "name": name,
        "optimal": float(np.mean(optimal)),
        "optimal_seeds": optimal,
        "interval": bootstrap_interval(optimal),
        "arrived": float(np.mean(arrived)),
        "histogram": np.mean(shares, axis=0).tolist(),
    }


def findings(
    context: Context,
    rows: Sequence[Mapping[str, Any]],
    drawn: Mapping[str, Any],
    known: Mapping[str, Any],
) -> Findings:
    table = Table(
        title="Paths to the goal, percent of the starts",
        columns=("method", "optimal", "95% interval", "arrive"),
        lines=tuple(
            (
                algorithm_title(row["name"]), f"{row['optimal']:.1f}",
                "-" if row["interval"] is None else "{:.1f} to {:.1f}".format(*row["interval"]),
                f"{row['arrived']:.1f}",
            )
            for row in rows
        ),
        note=(
            f"{len(context.seeds)} training seeds, {context.settings['episodes']} episodes each, every "
            "start counted alike; the interval is a bootstrap over seeds"
        ),
    )  # fmt: skip
    walks, *methods, _ = rows
    asking = [row for row in methods if row["name"].startswith("decision_transformer")] or methods
    kept = [*(row["optimal"] >= ENOUGH for row in asking), drawn["new"] > 0]
    told = ", ".join(f"{algorithm_title(row['name'])} {row['optimal']:.1f}%" for row in methods)
    text = (
        f"Shortest paths: {told} of the starts; {walks['optimal']:.1f}% of the walks in the data are "
        f"shortest, and from {known['without']} of 19 starts none of them is."
    )
    if drawn["optimal"]:
        text += (
            f" Of the {drawn['optimal']} shortest paths that {algorithm_title(drawn['recipe'])} (seed "
            f"0) takes, {drawn['new']} are part of no walk in the data."
        )
    return Findings(
        held=context.held(sum(kept), of=len(kept)) if asking else "untested",
        verdict=text,
        tables=(table,),
        rows=list(rows),
        picture={"paths": drawn, "graph": shortest_path_walks.graph()},
    )


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """Path lengths; the share of starts with a shortest path; one path in the graph."""
    axes = figure.subplot_mosaic(
        [["lengths", "lengths"], ["graph", "optimal"]],
        width_ratios=(1.6, 1),
        height_ratios=(1, 1.2),
    )
    _draw_lengths(axes["lengths"], results["rows"])
    _draw_optimal(axes["optimal"], results["rows"])
    shortest_path_walks.draw_graph(
        axes["graph"], results["picture"]["graph"], results["picture"]["paths"]
    )


def _colour(rows: Sequence[Mapping[str, Any]], place: int) -> str:
    """Grey for the data, black for what is best, a colour for each method."""
    if place == 0:
        return picture.DATA
    if place == len(rows) - 1:
        return picture.INK
    return picture.SERIES[(place - 1) % len(picture.SERIES)]


def _draw_lengths(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    width = 0.84 / len(rows)
    x = np.arange(LONGEST + 1)
    x = x + 0.6 * (x == LONGEST)
    for place, row in enumerate(rows):
        shift = (place - (len(rows) - 1) / 2) * width
        axes.bar(
            x + shift, row["histogram"], width, color=_colour(rows, place),
            label=algorithm_title(row["name"]),
        )  # fmt: skip
    axes.axvline(LONGEST - 0.2, color=picture.MUTED, linewidth=1)
    axes.set_xticks(x, [*map(str, range(1, LONGEST + 1)), "never"])
    axes.set_xlabel("steps to the goal")
    axes.set_ylabel("episodes, %")
    axes.grid(visible=False, axis="x")
    axes.set_title("How long the paths are")
    axes.legend(loc="upper center", ncols=2)


def _draw_optimal(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    shown = rows[:-1]
    for place, row in enumerate(shown):
        axes.barh(place, row["optimal"], color=_colour(rows, place), height=0.7)
        seeds = row["optimal_seeds"] if place else []
        axes.plot(seeds, [place] * len(seeds), "o", color=picture.INK, markersize=3)
        axes.text(max([row["optimal"], *seeds]) + 3, place, f"{row['optimal']:.0f}%", va="center")
    axes.set_yticks(range(len(shown)), [algorithm_title(row["name"]) for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("starts, %; dots: training seeds")
    axes.grid(visible=False, axis="y")
    axes.set_title("From how many starts it is a shortest")


def scale(minutes: float, *, walks: int, updates: int, others: int, **more: Any) -> Scale:
    size = f"{walks:,} walks, {updates:,} updates (DT), {others:,} (others)"
    own = {"decision_transformer": updates, "other": others}
    seeds = more.pop("seeds", 3)
    settings = {"walks": walks, "updates": own, **more}
    return Scale(minutes=minutes, size=f"{seeds} seeds, {size}", seeds=seeds, settings=settings)


EXPERIMENT = Experiment(
    name="shortest-path",
    title="Shortest paths from random walks",
    question="Does a Decision Transformer find shortest paths when its data are random walks?",
    claim="Asked for a high return, it walks nearly optimal paths; a part of them are in no walk.",
    source="Chen et al. 2021, figure 2 and appendix",
    published=(
        Published(
            what="steps to the goal",
            value="closely matches optimal paths; 15.8% of its paths are part of no walk in the data",
            where="Chen et al. 2021, appendix (a histogram)",
        ),
    ),
    scales={
        "small": scale(7, walks=1000, updates=3000, others=500, episodes=200),
        "paper": scale(60, walks=1000, updates=10_000, others=3_000, episodes=1000),
        "debug": scale(0.5, walks=100, updates=4, others=4, episodes=2, seeds=1),
    },
    algorithms=(
        "decision_transformer/shortest-path",
        "percent_behavior_cloning/ten",
        "behavior_cloning/discrete",
    ),
    run=run,
    draw=draw,
    alt=(
        "Histograms of path lengths of the data, of each method and of shortest paths; the share of "
        "starts with a shortest path; the longest of them in the graph."
    ),
    figure_size=(10.5, 8.0),
    version=3,
)
