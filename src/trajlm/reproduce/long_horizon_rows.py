"""The rows of long-horizon: which rollouts of which models are measured, each kept as a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from trajlm.reproduce import long_horizon_rollouts as measured
from trajlm.reproduce.context import Context
from trajlm.reproduce.long_horizon_findings import (
    BASELINE,
    CHOSEN,
    HIDDEN,
    IN_BINS,
    IN_RANGE,
    PLANNER,
    RECORDED,
    TRUTH,
    WHOLE,
)
from trajlm.reproduce.long_horizon_trainings import FREE, HISTORY, MARKOVIAN, settings_of
from trajlm.reproduce.taking_part import algorithm_title
from trajlm.runs.cells import Cell


def body_rows(
    context: Context, body: str, scene: Any, cells: Mapping[tuple[str, str, str], Sequence[Cell]]
) -> list[dict[str, Any]]:
    """A row for the truth and for each method, what it sees and whose actions it follows."""
    settings = settings_of(context, body)
    rows = [
        {"body": body, "method": TRUTH, "seen": WHOLE, "actions": RECORDED}
        | context.part(f"{body}-truth", lambda: measured.truth(scene()))
    ]
    clones = cells[settings["clone"]["recipe"], WHOLE, FREE]

    def compute(own: Sequence[Cell], chosen: bool, bounded: bool) -> dict[str, Any]:
        models = [measured.best_model(context.run_of(cell)) for cell in own]
        drivers = [measured.best_model(context.run_of(cell)) for cell in clones] if chosen else []
        return measured.rollouts(
            scene(), models, policies=[model.policy() for model in drivers], chosen=chosen,
            samples=settings["samples"], bounded=bounded,
        )  # fmt: skip

    def binned(cell: Cell) -> dict[str, Any]:
        return measured.in_bins(scene(), measured.best_model(context.run_of(cell)))

    for (recipe, seen, history), own in cells.items():
        for actions, bounded in forms(recipe, seen, history):
            form = f"{actions}-bounded" if bounded else actions
            key = "-".join([body, recipe.replace("/", "-"), seen, history, form])
            rows.append(
                {
                    "body": body,
                    "method": method_title(recipe, history, bounded=bounded),
                    "seen": seen,
                    "actions": actions,
                    "recipe": recipe,
                    **context.part(key, partial(compute, own, actions == CHOSEN, bounded)),
                }
            )
        if (recipe.split("/")[0], seen, history) == (PLANNER, WHOLE, HISTORY):
            rows.append(
                {"body": body, "method": IN_BINS, "seen": WHOLE, "actions": RECORDED}
                | context.part(f"{body}-bins", partial(binned, own[0]))
            )
    return rows


def forms(recipe: str, seen: str, history: str) -> list[tuple[str, bool]]:
    """Whose actions a model's rollouts follow, and whether they are kept in the data's range. An
    ensemble is, beside what it predicts freely: bins are always."""
    if history == FREE:
        return []
    actions = [RECORDED] if seen == HIDDEN else [RECORDED, CHOSEN]
    bounds = [False, True] if recipe.split("/")[0] == BASELINE and seen == WHOLE else [False]
    return [(each, bounded) for bounded in bounds for each in actions]


def method_title(recipe: str, history: str, *, bounded: bool = False) -> str:
    title = algorithm_title(recipe)
    if bounded:
        return f"{title}, {IN_RANGE}"
    return f"{title}, Markovian" if history == MARKOVIAN else title


def shown_windows(rows: Sequence[dict[str, Any]], form: str) -> dict[str, Any]:
    """The observations of strip and film by method, of the truth and of rollouts whose actions are
    of this `form`; taken out of the rows."""
    found = {}
    for row in rows:
        observations = row.pop("shown", None)
        wanted = RECORDED if row["method"] == TRUTH else form
        bounded = IN_RANGE in row["method"]
        if observations is not None and row["actions"] == wanted and not bounded:
            found[row["method"]] = observations
    return found
