"""Can a model of trajectories walk to a goal? Four rooms, and goals whose way the data never showed.

Janner et al. 2021 (arXiv 2106.02039), on planning to a goal: goals reached by the likeliest plan, with
no rewards. Their environment and data were not published; ours are `trajlm/FourRooms-v0` and a noisy
planner's recordings, from which the ways between two rooms that lie across are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import four_rooms_maps as maps
from trajlm.reproduce import four_rooms_ways as ways
from trajlm.reproduce import picture, taking_part
from trajlm.reproduce.base import Experiment, Findings, Published, Scale, Table
from trajlm.reproduce.context import Context
from trajlm.runs.cells import Cell
from trajlm.runs.config import resolve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR = 0.9
RANDOM_PAIRS, SHOWN_PAIRS, UNSHOWN_PAIRS = "random pairs", "of these, shown", "pairs never shown"
TITLES = {
    "trajectory_transformer": "Trajectory Transformer",
    "behavior_cloning": "behaviour cloning",
}


def refuses(recipe: str) -> str | None:
    """A model is told its goal by the environment or sees it; there is no return to ask for."""
    return "the data hold no rewards to ask for" if taking_part.takes_target(recipe) else None


def run(context: Context) -> Findings:
    cells = {recipe: cells_of(context, recipe) for recipe in context.algorithms}
    found = {
        row["command"]: row["returns"]
        for row in context.train([cell for each in cells.values() for cell in each])
    }
    number = context.settings["episodes"]
    seeds, unshown = range(ways.FIRST_SEED, ways.FIRST_SEED + number), _unshown_seeds(number)
    shown, rows = ways.shown_among(seeds), []
    for recipe, each in cells.items():
        further = {
            n: context.part(
                f"unshown-{cell.name}",
                partial(
                    ways.reached_by_model,
                    context.run_of(cell),
                    env_id=env_of(recipe),
                    seeds=unshown,
                ),
            )
            for n, cell in enumerate(each)
        }
        reached = {n: found[cell.command] for n, cell in enumerate(each)}
        rows += rows_of(recipe, reached, shown, further)
    for method, measure in (
        ("random", ways.reached_by_chance),
        ("oracle", ways.reached_by_planner),
    ):
        reached = {0: context.part(f"{method}-random-pairs", partial(measure, seeds))}
        further = {0: context.part(f"{method}-pairs-never-shown", partial(measure, unshown))}
        rows += rows_of(method, reached, shown, further)
    data = context.part("data", lambda: ways.sample_of(dataset(context, hindsight=False), 150))
    return findings(context, rows, {"ways": drawn_ways(context, cells), "data": data})


def rows_of(
    method: str,
    reached: Mapping[int, Sequence[float]],
    shown: Sequence[bool],
    further: Mapping[int, Sequence[float]],
) -> list[dict[str, Any]]:
    """A method's rows: over random pairs, those of them that the data shows, and pairs it does not."""
    among = {
        seed: [each for each, is_shown in zip(found, shown, strict=True) if is_shown]
        for seed, found in reached.items()
    }
    return [
        ways.summary(method, RANDOM_PAIRS, reached),
        ways.summary(method, SHOWN_PAIRS, among),
        ways.summary(method, UNSHOWN_PAIRS, further),
    ]


def drawn_ways(context: Context, cells: Mapping[str, Sequence[Cell]]) -> Any:
    """The ways of the first model that is asked for goals; none where there is none."""
    planner = next((recipe for recipe in cells if plans_to_goals(recipe)), None)
    if planner is None:
        return []
    return context.part(
        "drawn",
        lambda: ways.drawn_ways(
            context.run_of(cells[planner][0]), env_id=env_of(planner), **context.settings["drawn"]
        ),
    )


def cells_of(context: Context, recipe: str) -> list[Cell]:
    """A recipe's trainings, one a seed: on positions where its model is asked for goals, else on
    positions beside a goal in hindsight."""
    data = dataset(context, hindsight=not plans_to_goals(recipe))
    settings, name = context.settings, recipe.split("/")[0]
    return [
        context.cell(
            recipe, recipe=recipe, data=data, seed=seed, steps=settings["updates"].get(name),
            episodes=settings["episodes"], extra=settings["flags"].get(name, ()),
        )
        for seed in context.seeds
    ]  # fmt: skip


def plans_to_goals(recipe: str) -> bool:
    """Whether the recipe's model is asked for a goal, beside what it observes."""
    return "goal" in {field.name for field in fields(resolve(recipe).model)}


def env_of(recipe: str) -> str:
    return "trajlm/FourRooms-v0" if plans_to_goals(recipe) else "trajlm/FourRoomsGoal-v0"


def dataset(context: Context, *, hindsight: bool) -> str:
    name = f"trajlm/four-rooms/{'hindsight' if hindsight else 'noisy-planner'}-v0"

    def make(root: Path) -> object:
        from trajlm.collect.four_rooms import recorded_ways
        from trajlm.data.relabel import with_hindsight_goals
        from trajlm.data.sources.minari_writer import write

        store = recorded_ways(context.settings["recordings"])
        if hindsight:
            store = with_hindsight_goals(store, env_id="trajlm/FourRoomsGoal-v0")
        return write(store, dataset_id=name, root=root)

    return context.dataset(name, make)


def _unshown_seeds(number: int) -> list[int]:
    from trajlm.collect.four_rooms import UNSHOWN

    return ways.seeds_of(UNSHOWN, number=number, first=ways.UNSHOWN_FROM)


def findings(
    context: Context, rows: Sequence[Mapping[str, Any]], drawn: Mapping[str, Any]
) -> Findings:
    by_method: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["pairs"]] = row
    planners = [name for name in context.algorithms if plans_to_goals(name)]
    holding = [name for name in planners if by_method[name][RANDOM_PAIRS]["success"] >= BAR]
    shares = [
        f"{title(name)} {percent(pairs[RANDOM_PAIRS])} and {percent(pairs[UNSHOWN_PAIRS])}"
        for name, pairs in by_method.items()
    ]
    return Findings(
        held=context.held(len(holding), of=max(1, len(planners))),
        verdict=(
            "Of random goals, and of goals between rooms whose ways no recording shows, are reached: "
            + "; ".join(shares)
            + f". The bar is {100 * BAR:.0f}% of random goals."
        ),
        tables=(
            Table(
                title="Goals reached, percent of episodes",
                columns=("method", RANDOM_PAIRS, SHOWN_PAIRS, UNSHOWN_PAIRS),
                lines=tuple(
                    (title(name), *(percent(row) for row in pairs.values()))
                    for name, pairs in by_method.items()
                ),
                note=(
                    f"{rows[0]['episodes']} pairs of start and goal, drawn from all rooms; "
                    f"{rows[1]['episodes']} of them between rooms whose ways the data shows; "
                    f"{rows[2]['episodes']} further pairs from the south-west room to the north-east "
                    f"one or back, whose ways it never shows. In brackets: {rows[0]['interval_kind']}; "
                    f"training seeds: {len(context.seeds)}"
                ),
            ),
        ),
        rows=rows,
        picture=dict(drawn),
    )


def title(method: str) -> str:
    return TITLES.get(method.split("/")[0], method)


def percent(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['success']:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


# ---- the picture ------------------------------------------------------------------------------


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """Two maps with ways, for pairs the data shows and pairs it does not, above the successes."""
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.3, 1)).flat
    panels = above.subplots(1, 2)
    found = results["picture"]
    for axes, shown, name in zip(
        panels,
        (True, False),
        ("Pairs of rooms that the data shows", "Pairs never shown"),
        strict=True,
    ):
        maps.draw_map(axes, found["data"])
        axes.set_title(name)
        for place, way in enumerate(way for way in found["ways"] if way["shown"] == shown):
            maps.draw_way(axes, way, picture.SERIES[place])
    maps.draw_legend(above)
    _draw_successes(below.subplots(), results["rows"])


def _draw_successes(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for place, pairs in enumerate((RANDOM_PAIRS, SHOWN_PAIRS, UNSHOWN_PAIRS)):
        chosen = [row for row in rows if row["pairs"] == pairs]
        heights = [methods.index(row["method"]) + 0.25 * (place - 1) for row in chosen]
        share = [100 * row["success"] for row in chosen]
        ends = [[100 * abs(row["interval"][k] - row["success"]) for row in chosen] for k in (0, 1)]
        axes.errorbar(
            share, heights, xerr=ends, fmt=picture.MARKERS[place], color=picture.SERIES[place],
            capsize=3, markersize=6, label=pairs,
        )  # fmt: skip
        for x, y, row in zip(share, heights, chosen, strict=True):
            edge = 100 * row["interval"][1]
            axes.annotate(f"{x:.1f}", (edge, y), xytext=(6, 0), textcoords="offset points",
                          va="center", fontsize=8)  # fmt: skip
    axes.axvline(100 * BAR, color=picture.MUTED, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(methods)), [title(method) for method in methods])
    axes.set(xlim=(0, 108), xticks=range(0, 101, 20), ylim=(len(methods) - 0.5, -0.5))
    axes.set_xlabel("goals reached, percent of episodes, with 95% interval; dashed: 90")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)


PLANNER = "trajectory_transformer"
EXPERIMENT = Experiment(
    name="four-rooms",
    title="Walking to a goal, with and without having seen the way",
    question="Does a model of trajectories reach goals by its likeliest plan, also by ways it never saw?",
    claim="Conditioned on a goal, the likeliest plan leads to it, through doors, without any reward.",
    source="Janner et al. 2021, on planning to a goal",
    published=(
        Published(
            what="paths to goals in continuous four rooms",
            value="paths are drawn, no number is given",
            where="Janner et al. 2021, the figure of four rooms",
        ),
    ),
    scales={
        "small": Scale(
            minutes=15,
            size="4,000 recordings, 3,000 updates, 200 pairs",
            seeds=1,
            settings={
                "recordings": 4000,
                "updates": {},
                "episodes": 200,
                "flags": {},
                "drawn": {"horizon": 40, "beam_width": 32},
            },
        ),
        "paper": Scale(
            minutes=180,
            size="the same with 20,000 recordings, 40,000 updates, 1,000 pairs, 3 seeds",
            seeds=3,
            settings={
                "recordings": 20_000,
                "updates": {PLANNER: 40_000, "behavior_cloning": 40_000},
                "episodes": 1000,
                "flags": {},
                "drawn": {"horizon": 40, "beam_width": 64},
            },
        ),
        "debug": Scale(
            minutes=0.3,
            size="60 recordings, 5 updates, 4 pairs",
            seeds=1,
            settings={
                "recordings": 60,
                "updates": {PLANNER: 5, "behavior_cloning": 5},
                "episodes": 4,
                "flags": {PLANNER: ["--policy.horizon", "1", "--policy.beam-width", "2"]},
                "drawn": {"horizon": 3, "beam_width": 4},
            },
        ),
    },
    algorithms=("trajectory_transformer/goals", "behavior_cloning/goals"),
    refuses=refuses,
    run=run,
    draw=draw,
    alt=(
        "Two maps of four rooms with paths from starts to goals and the beams of their plans; below, "
        "the share of goals reached by each method with intervals."
    ),
    figure_size=(11.0, 9.0),
)
