"""Do predictions over a hundred steps stay plausible? A sequence model beside single-step ones.

Janner et al. 2021 (arXiv 2106.02039), section 4.1: a trained humanoid predicted 100 steps ahead, by
the Trajectory Transformer, its Markovian form and the ensemble of Chua et al. 2018. Their data and
settings were not published; ours are Walker2d, Hopper and a humanoid under the shipped behaviours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajlm.reproduce import long_horizon_pictures as pictures
from trajlm.reproduce import long_horizon_rollouts as measured
from trajlm.reproduce.base import Experiment, Findings, Published, Scale
from trajlm.reproduce.context import Context
from trajlm.reproduce.long_horizon_findings import (
    CHOSEN,
    ENVIRONMENTS,
    HIDDEN,
    PLANNER,
    RECORDED,
    TRUTH,
    WHOLE,
    judge,
    table_of,
)
from trajlm.reproduce.long_horizon_rows import body_rows, shown_windows
from trajlm.reproduce.long_horizon_trainings import (
    HISTORY,
    MARKOVIAN,
    cells_of,
    datasets,
    settings_of,
)
from trajlm.reproduce.taking_part import predicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def refuses(recipe: str) -> str | None:
    """Whatever predicts states takes part."""
    return None if predicts(recipe) else "it predicts no states"


def run(context: Context) -> Findings:
    data = {body: datasets(context, body) for body in context.settings["bodies"]}
    cells = {
        (body, *variant): each
        for body, (train, _) in data.items()
        for variant, each in cells_of(context, body, train).items()
    }
    context.train([cell for each in cells.values() for cell in each])
    rows, shown = [], {}
    for body, (train, truth) in data.items():
        scene = cache(
            partial(
                measured.Scene.of,
                *(ENVIRONMENTS[body],),
                train=train,
                truth=truth,
                settings=settings_of(context, body),
            )
        )
        own = {key[1:]: each for key, each in cells.items() if key[0] == body}
        found = body_rows(context, body, scene, own)
        rows += found
        shown[body] = shown_windows(found, context.settings["shown"])
    return findings(context, rows, shown)


def findings(
    context: Context, rows: Sequence[Mapping[str, Any]], shown: Mapping[str, Any]
) -> Findings:
    horizon = context.settings["horizon"]
    tables = tuple(
        table_of(rows, body=body, horizon=horizon) for body in context.settings["bodies"]
    )
    held, verdict = judge(context, rows)
    return Findings(held=held, verdict=verdict, tables=tables, rows=rows, picture={"shown": shown})


PANELS = (
    ("error", WHOLE, RECORDED, "Error, actions as recorded; dashed: two true rollouts"),
    (
        "log_likelihood",
        WHOLE,
        RECORDED,
        "Log-likelihood of the truth; dashed: the data's deviations",
    ),
    ("error", HIDDEN, RECORDED, "Velocities hidden: error of the positions"),
    ("log_likelihood", HIDDEN, RECORDED, "Velocities hidden: log-likelihood of the positions"),
    ("plausible", WHOLE, RECORDED, "Plausible bodies, actions as recorded; dashed: the truth"),
    ("plausible", WHOLE, CHOSEN, "Plausible bodies, actions chosen by the model"),
)


def draw(results: Mapping[str, Any], figure: Figure) -> None:
    """A column a body: `PANELS` over the horizon."""
    bodies = list(results["picture"]["shown"])
    axes = figure.subplots(len(PANELS), len(bodies), squeeze=False, sharex=True)
    known = [row["method"] for row in results["rows"] if row["method"] != TRUTH]
    methods = list(dict.fromkeys(known))
    for column, body in enumerate(bodies):
        rows = [row for row in results["rows"] if row["body"] == body]
        for own, (measure, seen, actions, title) in zip(axes[:, column], PANELS, strict=True):
            curves = [
                (row["method"], row[measure])
                for row in rows[1:]
                if (row["seen"], row["actions"]) == (seen, actions) and measure in row
            ]
            if not curves:
                own.set_axis_off()
                continue
            reference = rows[0][measure] if seen == WHOLE else None
            pictures.draw_curves(
                own, measure, curves, methods=methods, reference=reference, title=title
            )
        axes[0, column].set_title(f"{ENVIRONMENTS[body]}\n{PANELS[0][3]}")
        axes[-1, column].set_xlabel("steps ahead")
    marks = pictures.marks(methods)
    figure.legend(*marks, loc="outside lower center", ncols=len(methods) + 1, fontsize=9)


def film(results: Mapping[str, Any], path: Path) -> Path | None:
    """The shown windows as a film."""
    bodies, rows = shown_bodies(results)
    return pictures.write_film(bodies, path, rows=rows)


def strip(results: Mapping[str, Any], path: Path) -> Path | None:
    """Moments of the shown windows."""
    bodies, rows = shown_bodies(results)
    return pictures.write_strip(bodies, path, rows=rows)


def shown_bodies(results: Mapping[str, Any]) -> tuple[pictures.Shown, pictures.Rows]:
    """Observations by environment and method, and the methods with short titles."""
    shown = results["picture"]["shown"]
    methods = list(next(iter(shown.values())))
    short = [name.replace("Trajectory Transformer", "TT") for name in methods]
    bodies = {ENVIRONMENTS[body]: each for body, each in shown.items()}
    return bodies, list(zip(methods, short, strict=True))


VARIANTS = [[WHOLE, HISTORY], [WHOLE, MARKOVIAN], [HIDDEN, HISTORY], [HIDDEN, MARKOVIAN]]
SMALL: dict[str, Any] = {
    "bodies": {
        "walker2d": {},
        "hopper": {},
        "humanoid": {
            "tier": "expert",
            "transitions": 4,
            "variants": VARIANTS[:2],
            "updates": {
                PLANNER: {HISTORY: 1_800, MARKOVIAN: 1_800},
                "other": {HISTORY: 6_000, MARKOVIAN: 6_000},
            },
            "samples": 4,
        },
    },
    "tier": "medium-expert",
    "steps": 200_000,
    "truth_steps": 60_000,
    "transitions": None,
    "known": 8,
    "horizon": 100,
    "starts": 112,
    "samples": 6,
    "nudge": 0.01,
    "shown": RECORDED,
    "variants": VARIANTS,
    "updates": {
        PLANNER: {HISTORY: 3_200, MARKOVIAN: 3_200},
        "other": {HISTORY: 6_000, MARKOVIAN: 6_000},
    },
    "clone": {"recipe": "behavior_cloning/small", "updates": 4_000},
}
EXPERIMENT = Experiment(
    name="long-horizon",
    title="A body predicted a hundred steps ahead",
    question="Do open-loop predictions stay plausible, and near to what truly follows, for 100 steps?",
    claim="The sequence model's predictions stay plausible where a single-step model's diverge.",
    source="Janner et al. 2021, section 4.1",
    published=(
        Published(
            what="a humanoid predicted 100 steps ahead",
            value="pictures and curves, no number is given",
            where="Janner et al. 2021, figures 2 and 3",
        ),
    ),
    scales={
        "small": Scale(
            minutes=90,
            size="3 bodies, 200,000 steps, 1,800 to 6,000 updates, 112 starts",
            seeds=1,
            settings=SMALL,
        ),
        "paper": Scale(
            minutes=20 * 60,
            size="3 seeds, a million steps, 80,000 updates, 512 starts",
            settings={
                **SMALL,
                "bodies": {
                    "walker2d": {},
                    "hopper": {},
                    "humanoid": {"tier": "expert", "variants": VARIANTS[:2]},
                },
                "steps": 1_000_000,
                "truth_steps": 250_000,
                "starts": 512,
                "samples": 32,
                "updates": {
                    PLANNER: {HISTORY: 80_000, MARKOVIAN: 80_000},
                    "other": {HISTORY: 50_000, MARKOVIAN: 50_000},
                },
            },
        ),
        "debug": Scale(
            minutes=1,
            size="one body, 400 steps, 3 updates, 3 starts",
            seeds=1,
            settings={
                **SMALL,
                "bodies": {"hopper": {}},
                "steps": 400,
                "truth_steps": 100,
                "known": 3,
                "horizon": 6,
                "starts": 3,
                "samples": 3,
                "variants": [[WHOLE, HISTORY], [HIDDEN, MARKOVIAN]],
                "updates": {"other": {HISTORY: 3, MARKOVIAN: 3}},
                "clone": {"recipe": "behavior_cloning/debug", "updates": 3},
            },
        ),
    },
    algorithms=("trajectory_transformer/world-model", "dynamics_ensemble/small"),
    refuses=refuses,
    run=run,
    draw=draw,
    further={"strip.png": strip, "film.gif": film},
    alt=(
        "For each body curves over the horizon: error and log-likelihood, whole and with velocities "
        "hidden, and the share of plausible bodies."
    ),
    figure_size=(15.0, 14.5),
)
