"""Is an early decision credited where its reward comes late? Key-to-Door, and a model as critic.

Chen et al. 2021 (arXiv 2106.01345), on long-term credit assignment and on critics. Their environment and
data were not published; ours are `trajlm/KeyToDoor-v0` and its random walks. As there, BC learns from
all walks and %BC from successful ones alone (3% of the steps, of which 3.4% belong to successes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.evaluation.scores import bootstrap_interval
from trajlm.reproduce import key_to_door_critic, picture
from trajlm.reproduce.base import Experiment, Findings, Held, Published, Scale, Table
from trajlm.reproduce.context import Context
from trajlm.reproduce.taking_part import algorithm_title, updates_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENV_ID = "trajlm/KeyToDoor-v0"
PUBLISHED = {
    1_000: {
        "decision_transformer": 71.8,
        "behavior_cloning": 1.4,
        "percent_behavior_cloning": 69.9,
    },
    10_000: {
        "decision_transformer": 94.6,
        "behavior_cloning": 1.6,
        "percent_behavior_cloning": 95.1,
    },
}
PUBLISHED_RANDOM = 3.1
HINDSIGHT, BASELINE = ("decision_transformer", "percent_behavior_cloning"), "behavior_cloning"
FAR = 30.0
"""Points of success that are called far apart."""


def run(context: Context) -> Findings:
    settings = context.settings
    cells = {}
    for count in settings["walks"]:
        data = context.dataset(f"trajlm/key-to-door/walks-{count}-v0", maker(count))
        for recipe in context.algorithms:
            cells[recipe, count] = [
                context.cell(
                    *(recipe, str(count)), recipe=recipe, data=data, seed=seed,
                    steps=updates_of(recipe, settings["updates"]), episodes=settings["episodes"],
                )
                for seed in context.seeds
            ]  # fmt: skip
    found = {
        row["command"]: row for row in context.train([c for each in cells.values() for c in each])
    }
    rows = [
        success_row(recipe, count, [found[cell.command]["returns"] for cell in each])
        for (recipe, count), each in cells.items()
    ]
    chance = context.part("random", lambda: chance_of_walks(settings["probes"]))
    critic = None
    for (_, count), each in cells.items():
        if count == max(settings["walks"]) and critic is None:
            critic = key_to_door_critic.reading(context, each[0], probes=settings["probes"])
    return findings(context, rows, chance=chance, critic=critic)


def maker(count: int) -> Any:
    """Writes `count` random walks below the folder it is given."""

    def make(root: Any) -> object:
        from trajlm.collect.walks import write_walks

        return write_walks(
            key_to_door_critic.walk, env_id=ENV_ID, count=count, root=root,
            dataset_id=f"trajlm/key-to-door/walks-{count}-v0", behaviour="actions drawn evenly",
        )  # fmt: skip

    return make


def chance_of_walks(count: int) -> float:
    """Percent of random walks, none of them in the data, that succeed."""
    walks = key_to_door_critic.fresh_walks(count)
    return 100.0 * float(np.mean([trajectory.episode_return for trajectory, _ in walks]))


def success_row(recipe: str, count: int, returns: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Percent of episodes that succeed: a mean over training seeds, and each seed's."""
    seeds = 100.0 * np.mean(returns, axis=1)
    return {
        "recipe": recipe,
        "walks": count,
        "success": float(seeds.mean()),
        "seeds": seeds.tolist(),
        "interval": bootstrap_interval(seeds),
        "published": PUBLISHED.get(count, {}).get(recipe.split("/")[0]),
    }


def findings(
    context: Context,
    rows: Sequence[Mapping[str, Any]],
    *,
    chance: float,
    critic: Mapping[str, Any] | None,
) -> Findings:
    table = Table(
        title="Success in Key-to-Door, percent of episodes",
        columns=("method", "walks", "success", "95% interval", "seeds", "published"),
        lines=(
            *(
                (
                    algorithm_title(row["recipe"]), f"{row['walks']:,}", f"{row['success']:.1f}",
                    "-" if row["interval"] is None else "{:.1f} to {:.1f}".format(*row["interval"]),
                    ", ".join(f"{seed:.1f}" for seed in row["seeds"]),
                    "-" if row["published"] is None else f"{row['published']}",
                )
                for row in rows
            ),
            ("random", "-", f"{chance:.1f}", "-", "-", f"{PUBLISHED_RANDOM}"),
        ),
        note=(
            f"Training seeds: {len(context.seeds)}, {context.settings['episodes']} episodes each; the "
            f"interval is a bootstrap over seeds; random: {context.settings['probes']:,} episodes"
        ),
    )  # fmt: skip
    held, verdict = judge(context, rows)
    tables = (table,) if critic is None else (table, key_to_door_critic.table(critic))
    return Findings(
        held=held,
        verdict=verdict if critic is None else f"{verdict} {critic['sentence']}",
        tables=tables,
        rows=[*rows, {"recipe": "random", "success": chance, "published": PUBLISHED_RANDOM}],
        picture={} if critic is None else {"critic": dict(critic)},
    )


def judge(context: Context, rows: Sequence[Mapping[str, Any]]) -> tuple[Held, str]:
    """Whether what learns from returns is far above BC, for each size of the data."""
    by_name = {(row["recipe"].split("/")[0], row["walks"]): row["success"] for row in rows}
    pairs = [(name, n) for name, n in by_name if name in HINDSIGHT and (BASELINE, n) in by_name]
    if not pairs:
        return "untested", "The published methods did not take part."
    far = [pair for pair in pairs if by_name[pair] >= by_name[BASELINE, pair[1]] + FAR]
    told = "; ".join(
        f"from {count:,} walks " + ", ".join(
            f"{algorithm_title(name)} {by_name[name, count]:.1f}%"
            for name in (*HINDSIGHT, BASELINE) if (name, count) in by_name
        )
        for count in dict.fromkeys(n for _, n in by_name)
    )  # fmt: skip
    text = f"What learns from returns is far above BC in {len(far)} of {len(pairs)} cases: {told}."
    return context.held(len(far), of=len(pairs)), text


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """Success of all methods; with a critic, what it foretells and what it looks at."""
    critic = results["picture"].get("critic")
    if critic is None:
        _draw_success(figure.subplots(), results["rows"])
        return
    axes = figure.subplot_mosaic(
        [["success", "success"], ["foretold", "attention"]], height_ratios=(1.0, 1.15)
    )
    _draw_success(axes["success"], results["rows"])
    key_to_door_critic.draw_foretold(axes["foretold"], critic)
    key_to_door_critic.draw_attention(axes["attention"], critic)


def _draw_success(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    methods = [row for row in rows if row["recipe"] != "random"]
    sizes = list(dict.fromkeys(row["walks"] for row in methods))
    recipes = list(dict.fromkeys(row["recipe"] for row in methods))
    width = 0.8 / len(recipes)
    for place, recipe in enumerate(recipes):
        own = [row for row in methods if row["recipe"] == recipe]
        x = np.array([sizes.index(row["walks"]) for row in own])
        x = x + (place - (len(recipes) - 1) / 2) * width
        colour = picture.SERIES[place % len(picture.SERIES)]
        heights = [row["success"] for row in own]
        axes.bar(x, heights, 0.92 * width, color=colour, label=algorithm_title(recipe))
        for at, row in zip(x, own, strict=True):
            axes.text(
                at, max([row["success"], *row["seeds"], row["published"] or 0.0]) + 2.5,
                f"{row['success']:.1f}", ha="center", va="bottom",
            )  # fmt: skip
            axes.plot([at] * len(row["seeds"]), row["seeds"], "o", color=picture.INK, markersize=3)
            if row["published"] is not None:
                ends = [at - 0.46 * width, at + 0.46 * width]
                axes.plot(ends, [row["published"]] * 2, color=picture.INK, linewidth=2)
    axes.plot([], [], color=picture.INK, linewidth=2, label="published")
    axes.plot([], [], "o", color=picture.INK, markersize=3, label="one training seed")
    chance = next(row["success"] for row in rows if row["recipe"] == "random")
    axes.axhline(chance, color=picture.MUTED, linestyle="--", label=f"random, {chance:.1f}")
    axes.set_xticks(range(len(sizes)), [f"learned from {size:,} random walks" for size in sizes])
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("episodes that succeed, %")
    axes.grid(visible=False, axis="x")
    title = "Success: the key taken in the first room, the door entered in the third"
    axes.set_title(title, pad=26)
    names = len(recipes) + 3
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.97), ncols=min(names, 6), columnspacing=1.4,
        fontsize=9,
    )  # fmt: skip


EXPERIMENT = Experiment(
    name="key-to-door",
    title="Key-to-Door: credit over a whole episode, and the model as critic",
    question="Is an early decision credited where its reward comes late, and does a model foresee it?",
    claim=(
        "From random walks alone the Decision Transformer and %BC learn to fetch the key, BC does not; "
        "the predicted return changes with the key and the door, which the model attends to."
    ),
    source="Chen et al. 2021, on long-term credit assignment and on critics",
    published=tuple(
        Published(
            what=f"success from {count:,} walks: DT, BC, %BC, random",
            value="{decision_transformer} / {behavior_cloning} / {percent_behavior_cloning}".format(
                **one
            )
            + f" / {PUBLISHED_RANDOM}%",
            where="Chen et al. 2021, table of Key-to-Door",
        )
        for count, one in PUBLISHED.items()
    ),
    scales={
        "small": Scale(
            minutes=27,
            size="3 seeds, 1,000 and 10,000 walks, 6,000 updates (DT), 600 (others)",
            settings={
                "walks": [1_000, 10_000],
                "updates": {"decision_transformer": 6_000, "other": 600},
                "episodes": 200,
                "probes": 2_000,
            },
        ),
        "paper": Scale(
            minutes=6 * 60,
            size="the same data, 20,000 updates, 1,000 episodes",
            settings={
                "walks": [1_000, 10_000],
                "updates": {"decision_transformer": 20_000, "other": 5_000},
                "episodes": 1_000,
                "probes": 10_000,
            },
        ),
        "debug": Scale(
            minutes=0.5,
            size="one seed, 200 walks, 4 updates",
            seeds=1,
            settings={"walks": [200], "updates": {"other": 4}, "episodes": 2, "probes": 400},
        ),
    },
    algorithms=(
        "decision_transformer/key-to-door",
        "percent_behavior_cloning/three",
        "behavior_cloning/discrete",
    ),
    run=run,
    draw=draw,
    alt=(
        "Success of each method from 1,000 and 10,000 walks beside the published; the predicted return "
        "along three episodes; the attention of the last step."
    ),
    figure_size=(10.5, 8.0),
)
