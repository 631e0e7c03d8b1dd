"""Is a search that a critic guides better than the search and than the critic's own policy?

Janner et al. 2021 (arXiv 2106.02039), section 4.4, on AntMaze: the Trajectory Transformer's search with
the value function of implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169) in place of its own
values. Code and models were not published. Ours walks through the three mazes of PointMaze, in which a
reward comes at the goal alone, and learns from walks that do not look at it (`collect/mazes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import maze_ways as ways
from trajlm.reproduce import picture, taking_part
from trajlm.reproduce.base import Experiment, Findings, Published, Scale, Table
from trajlm.reproduce.context import Context
from trajlm.runs.cells import Cell
from trajlm.runs.config import resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
TITLES = {
    "pointmaze-umaze": "UMaze",
    "pointmaze-medium": "Medium",
    "pointmaze-large": "Large",
}


def run(context: Context) -> Findings:
    settings = context.settings
    data = {
        maze: context.shipped(maze, "waypoints", steps=steps)
        for maze, steps in settings["mazes"].items()
    }
    cells = {
        (maze, recipe): [training(context, recipe, maze, data[maze], n) for n in context.seeds]
        for maze in data
        for recipe in context.algorithms
    }
    found = {
        row["command"]: row["returns"]
        for row in context.train([cell for each in cells.values() for cell in each])
    }
    pairs = guided_pairs(context.algorithms)
    guided = {
        (maze, planner, critic): [
            context.evaluation("guided", critic, of=one, episodes=settings["episodes"], guide=other)
            for one, other in zip(cells[maze, planner], cells[maze, critic], strict=True)
        ]
        for maze in data
        for planner, critic in pairs
    }
    found |= {
        row["command"]: row["returns"]
        for row in context.evaluate([cell for each in guided.values() for cell in each])
    }
    rows, drawn = [], {}
    for maze, path in data.items():
        walks = context.part(f"data-{maze}", partial(ways.walks_in, path, drawn=settings["walks"]))
        rows.append(ways.row_of(maze, ways.DATA, [walks["reached"]]))
        for recipe in context.algorithms:
            reached = [found[cell.command] for cell in cells[maze, recipe]]
            rows.append(ways.row_of(maze, recipe, reached))
        for planner, critic in pairs:
            reached = [found[cell.command] for cell in guided[maze, planner, critic]]
            rows.append(ways.row_of(maze, planner, reached, guide=critic))
        shown = pairs[0] if pairs else (context.algorithms[-1], None)
        drawn[maze] = {
            "walls": context.part(f"walls-{maze}", partial(ways.walls_of, maze)),
            "walks": walks["ways"],
            "steps": walks["steps"],
            "ways": context.part(
                f"ways-{maze}", partial(drawn_ways, context, cells, maze, *shown)
            ),
            "walker": name_of({"recipe": shown[0], "guide": shown[1]}, context.algorithms),
        }  # fmt: skip
    named = [{**row, "name": name_of(row, context.algorithms)} for row in rows]
    return findings(context, named, drawn)


def training(context: Context, recipe: str, maze: str, data: str, seed: int) -> Cell:
    settings = context.settings
    return context.cell(
        *(recipe, maze), recipe=recipe, data=data, seed=seed, targets=("max",),
        steps=taking_part.updates_of(recipe, settings["updates"]),
        episodes=settings["episodes"],
        extra=settings["flags"].get(recipe, ()),
    )  # fmt: skip


def guided_pairs(algorithms: Sequence[str]) -> list[tuple[str, str]]:
    """(planner, critic) of the recipes that take part."""
    return [
        (planner, critic)
        for planner in algorithms
        for critic in algorithms
        if taking_part.takes_guide(planner) and taking_part.offers_critic(critic)
    ]


def drawn_ways(
    context: Context,
    cells: Mapping[tuple[str, str], Sequence[Cell]],
    maze: str,
    recipe: str,
    guide: str | None,
) -> Any:
    return ways.ways_of(
        context.run_of(cells[maze, recipe][0]),
        guide=None if guide is None else context.run_of(cells[maze, guide][0]),
        maze=maze,
        number=context.settings["drawn"],
    )


def name_of(row: Mapping[str, Any], algorithms: Sequence[str]) -> str:
    """What tables and pictures call a row."""
    asked = {each for each in algorithms if asks_for_goals(each)}
    names = taking_part.titles([each for each in algorithms if each not in asked])
    names |= {each: f"{taking_part.algorithm_title(each)}, asked for the goal" for each in asked}
    name = names.get(row["recipe"], row["recipe"])
    return f"{name}, guided by {names[row['guide']]}" if row["guide"] else name


def asks_for_goals(recipe: str) -> bool:
    """Whether the recipe's model is asked for a goal, beside what it observes."""
    return getattr(resolve(recipe).model, "goal", "none") != "none"


# ---- findings ---------------------------------------------------------------------------------


def findings(context: Context, rows: Rows, drawn: Mapping[str, Any]) -> Findings:
    held, words = [], []
    for maze in drawn:
        inside = {
            (row["recipe"], row["guide"]): row["success"] for row in rows if row["maze"] == maze
        }
        for (recipe, guide), success in inside.items():
            if guide is not None:
                parts = inside[recipe, None], inside[guide, None]
                held.append(success > max(parts))
                words.append(
                    f"{TITLES[maze]} {100 * success:.0f}% (search alone {100 * parts[0]:.0f}%, "
                    f"critic's own policy {100 * parts[1]:.0f}%)"
                )
    verdict = (
        "The guided search reached of the goals: " + "; ".join(words) + "."
        if words
        else "No search and critic took part, so nothing was guided."
    )
    return Findings(
        held=context.held(sum(held), of=len(held)),
        verdict=verdict,
        tables=(table(rows, drawn, seeds=len(context.seeds)),),
        rows=rows,
        picture=dict(drawn),
    )


def table(rows: Rows, drawn: Mapping[str, Any], *, seeds: int) -> Table:
    names = list(dict.fromkeys(row["name"] for row in rows))
    cells = {(row["name"], row["maze"]): share(row) for row in rows}
    counted = next(row for row in rows if row["recipe"] != ways.DATA)
    steps = ", ".join(f"{TITLES[maze]} {each['steps']:,}" for maze, each in drawn.items())
    return Table(
        title="Goals reached, percent of episodes",
        columns=("method", *(TITLES[maze] for maze in drawn)),
        lines=tuple((name, *(cells[name, maze] for maze in drawn)) for name in names),
        note=(
            f"{counted['episodes']} episodes for each training; in brackets: "
            f"{counted['interval_kind']}, training seeds: {seeds}. Steps of data: {steps}"
        ),
    )


def share(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['success']:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """Above, each maze with ways walked on it; below, bars of success."""
    drawn = results["picture"]
    panels = figure.subplots(2, len(drawn), squeeze=False, height_ratios=(1.3, 1))
    for number, (maze, each) in enumerate(drawn.items()):
        above, below = panels[:, number]
        ways.draw_map(above, each["walls"], each["walks"])
        for place, way in enumerate(each["ways"]):
            ways.draw_way(above, way, picture.SERIES[place % len(picture.SERIES)])
        above.set_title(TITLES[maze])
        rows = [row for row in results["rows"] if row["maze"] == maze]
        ways.draw_bars(below, rows, named=number == 0)
    walker = next(iter(drawn.values()))["walker"]
    figure.supxlabel(
        f"Ways of: {walker}. Disc: start; star: goal; cross: ended elsewhere; grey: walks in the data",
        fontsize=9,
    )


PLANNER, CRITIC = "trajectory_transformer", "implicit_q_learning"
SMALLER = ("--model.width", "128", "--training.batch-size", "128")
EXPERIMENT = Experiment(
    name="mazes",
    title="Sparse mazes, and a search guided by a critic",
    question="Does a search that a critic guides reach goals that neither finds alone?",
    claim="The guided search beats both of its parts.",
    source="Janner et al. 2021 (arXiv 2106.02039), section 4.4 and the table of AntMaze",
    published=(
        Published(
            what="AntMaze, five tasks, average score of TT guided by IQL's critic",
            value="84.0",
            where="Janner et al. 2021, the table of AntMaze",
        ),
        Published(what="the same of IQL alone", value="63.2", where="the same table"),
        Published(what="the same of DT, BC", value="11.8, 10.9", where="the same table"),
    ),
    scales={
        "small": Scale(
            minutes=120,
            size="three mazes, 310,000 steps of data in all, 100 episodes",
            seeds=3,
            settings={
                "mazes": {
                    "pointmaze-umaze": 60_000,
                    "pointmaze-medium": 100_000,
                    "pointmaze-large": 150_000,
                },
                "updates": {PLANNER: 4000, CRITIC: 20000, "other": 2000},
                "flags": {f"{CRITIC}/maze": list(SMALLER)},
                "episodes": 100,
                "walks": 60,
                "drawn": 5,
            },
        ),
        "paper": Scale(
            minutes=2000,
            size="a million steps of data each, the recipes' width, 300 episodes, 5 seeds",
            seeds=5,
            settings={
                "mazes": {
                    "pointmaze-umaze": 1_000_000,
                    "pointmaze-medium": 1_000_000,
                    "pointmaze-large": 1_000_000,
                },
                "updates": {PLANNER: 40_000, CRITIC: 100_000, "other": 40_000},
                "flags": {},
                "episodes": 300,
                "walks": 60,
                "drawn": 5,
            },
        ),
        "debug": Scale(
            minutes=1,
            size="one maze, 300 steps of data, 3 updates, 2 episodes",
            seeds=1,
            settings={
                "mazes": {"pointmaze-umaze": 300},
                "updates": {PLANNER: 3, CRITIC: 3, "other": 3},
                "flags": {
                    f"{PLANNER}/maze": ["--policy.horizon", "1", "--policy.beam-width", "2"],
                    f"{PLANNER}/maze-goals": ["--policy.horizon", "1", "--policy.beam-width", "2"],
                    f"{CRITIC}/maze": ["--model.width", "16"],
                },
                "episodes": 2,
                "walks": 5,
                "drawn": 2,
            },
        ),
    },
    algorithms=(
        "behavior_cloning/goals",
        "decision_transformer/maze",
        f"{CRITIC}/maze",
        f"{PLANNER}/maze",
        f"{PLANNER}/maze-goals",
    ),
    run=run,
    draw=draw,
    alt=(
        "Three mazes with ways from starts to goals over grey walks of the data; below each, bars of "
        "the share of goals reached by every method, with intervals."
    ),
    figure_size=(13.0, 8.0),
)
