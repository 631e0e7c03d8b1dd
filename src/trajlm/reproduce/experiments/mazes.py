"""Is a search that a critic guides better than the search and than the critic's own policy?

Janner et al. 2021 (arXiv 2106.02039), section 4.4, on AntMaze: the Trajectory Transformer's search with
the value function of implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169) in place of its own
values. Code and models were not published. Ours walks through the three mazes of PointMaze, in which a
reward comes at the goal alone, and learns from walks that do not look at it (`collect/mazes.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import maze_ways as ways
from trajlm.reproduce import picture, taking_part
from trajlm.reproduce.base import Experiment, Findings, Published, Scale
from trajlm.reproduce.context import Context
from trajlm.reproduce.maze_findings import TITLES, findings, name_of
from trajlm.reproduce.maze_trainings import TIER, Trained, guided_searches, trainings
from trajlm.reproduce.selection import in_turn
from trajlm.runs.cells import Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Walker = tuple[str, str | None]
"""A recipe, and that of the critic that guides it."""


def cells(context: Context) -> list[Cell]:
    """Every training; searches that a critic guides follow those of their parts."""
    return in_turn(trainings(context).values())


def run(context: Context) -> Findings:
    trained = trainings(context)
    guided = dict(guided_searches(context, trained))
    found = reached_by(context, trained, guided)
    rows, drawn = [], {}
    for maze in context.settings["mazes"]:
        wanted: dict[Walker, list[Cell]] = {
            **{(name, None): each for (where, name), each in trained.items() if where == maze},
            **{(name, by): each for (where, name, by), each in guided.items() if where == maze},
        }
        there = {
            key: [found[cell.command] for cell in each if cell.command in found]
            for key, each in wanted.items()
            if any(cell.command in found for cell in each)
        }
        if not there:
            continue
        walks = context.part(f"data-{maze}", partial(walks_of, context, maze))
        rows.append(ways.row_of(maze, ways.DATA, [walks["reached"]]))
        rows += [
            ways.row_of(maze, recipe, reached, guide=guide)
            for (recipe, guide), reached in there.items()
        ]
        rows += true_rows(context, trained, maze, found)
        drawn[maze] = scene(context, trained, maze, walks, there)
    named = [{**row, "name": name_of(row, context.algorithms)} for row in rows]
    count = sum(map(len, [*trained.values(), *guided.values()]))
    return findings(context, named, drawn, there=len(found), count=count)


def reached_by(
    context: Context, trained: Trained, guided: Mapping[Any, Sequence[Cell]]
) -> dict[str, list[float]]:
    """Each episode's return by the command that made it: of the trainings, and of the searches both
    of whose parts are there."""
    done = context.train(in_turn(trained.values()))
    found = {row["command"]: row["returns"] for row in done}
    names = {cell.name for each in trained.values() for cell in each if cell.command in found}
    ready = [
        cell for each in guided.values() for cell in each if {cell.evaluates, cell.guide} <= names
    ]
    return found | {row["command"]: row["returns"] for row in context.evaluate(ready)}


def true_rows(
    context: Context, trained: Trained, maze: str, found: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What each critic is worth to searches in the true maze, a row a horizon."""
    from trajlm.reproduce.maze_truth import arrivals

    truth = context.settings["truth"]
    for recipe in filter(taking_part.offers_critic, context.algorithms):
        critics = [cell for cell in trained[maze, recipe] if cell.command in found]
        for horizon in truth["horizons"] if critics else ():
            reached = [
                context.part(
                    f"true-{cell.name}-{horizon}",
                    partial(
                        arrivals, context.run_of(cell), maze=maze, horizon=horizon,
                        candidates=truth["candidates"], episodes=context.settings["episodes"],
                    ),
                )
                for cell in critics
            ]  # fmt: skip
            yield {**ways.row_of(maze, ways.TRUE_MAZE, reached, guide=recipe), "horizon": horizon}


def walks_of(context: Context, maze: str) -> dict[str, Any]:
    """The data's own walks, and how many steps they are."""
    data = context.shipped(maze, TIER, steps=context.settings["mazes"][maze])
    return ways.walks_in(data, drawn=context.settings["walks"])


def scene(
    context: Context,
    trained: Trained,
    maze: str,
    walks: Mapping[str, Any],
    there: Mapping[Walker, Any],
) -> dict[str, Any]:
    """What a maze's picture shows: the walls, walks of the data, and ways of the guided search, or,
    where there is none, of the last recipe."""
    recipe, guide = next((key for key in there if key[1]), list(there)[-1])
    walked = f"ways-{maze}-{recipe}-{guide}".replace("/", "-")
    return {
        "walls": context.part(f"walls-{maze}", partial(ways.walls_of, maze)),
        "walks": walks["ways"],
        "steps": walks["steps"],
        "ways": context.part(walked, partial(drawn_ways, context, trained, maze, recipe, guide)),
        "walker": name_of({"recipe": recipe, "guide": guide}, context.algorithms),
    }


def drawn_ways(
    context: Context,
    trained: Trained,
    maze: str,
    recipe: str,
    guide: str | None,
) -> Any:
    return ways.ways_of(
        context.run_of(trained[maze, recipe][0]),
        guide=None if guide is None else context.run_of(trained[maze, guide][0]),
        maze=maze,
        number=context.settings["drawn"],
    )


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """Above, each maze with ways walked on it; below, bars of success."""
    drawn = results["picture"]
    if not drawn:
        return
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
                "truth": {"horizons": [1, 8], "candidates": 64},
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
                "truth": {"horizons": [1, 8], "candidates": 64},
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
                "truth": {"horizons": [2], "candidates": 4},
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
    cells=cells,
    run=run,
    draw=draw,
    alt=(
        "Three mazes with ways from starts to goals over grey walks of the data; below each, bars of "
        "the share of goals reached by every method, with intervals."
    ),
    figure_size=(13.0, 8.0),
)
