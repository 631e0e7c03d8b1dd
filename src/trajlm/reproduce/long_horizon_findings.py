"""What long-horizon's rows say: a table a body, and whether the claim held.

A row is a method's curves over the horizon, what it saw and whose actions it followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trajlm.reproduce.base import Held, Table
from trajlm.reproduce.context import Context
from trajlm.reproduce.taking_part import algorithm_title

ENVIRONMENTS = {
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "humanoid": "trajlm/Humanoid-v5",
}
TRUTH, WHOLE, HIDDEN, RECORDED, CHOSEN = "truth", "whole", "hidden", "recorded", "chosen"
PLANNER, BASELINE = "trajectory_transformer", "dynamics_ensemble"
IN_RANGE, IN_BINS = "in range", "true dynamics in bins"
Row = Mapping[str, Any]


def table_of(rows: Sequence[Row], *, body: str, horizon: int) -> Table:
    steps = sorted({min(10, horizon), horizon})
    lines = []
    own = [row for row in rows if row["body"] == body]
    for row in own:
        error = [_at(row["error"], step) for step in steps]
        likelihood = _at(row["log_likelihood"], horizon) if "log_likelihood" in row else "-"
        worth = ["-"] * 3
        if "plausible_later" in row:
            share, ends = row["plausible_later"]["share"], row["plausible_later"]["interval"]
            told = "" if ends is None else f" [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]"
            worth = [f"{100 * share:.0f}{told}", f"{100 * row['height_apart']:.1f}"]
            worth += [f"{row['speed_apart']:.2f}" if "speed_apart" in row else "-"]
        form = f"{row['seen']}, {row['actions']}"
        lines.append((row["method"], form, *error, likelihood, *worth))
    return Table(
        title=f"{ENVIRONMENTS[body]}, {own[0]['windows']} starts",
        columns=(
            *("method", "state, actions"), *(f"error at +{step}" for step in steps),
            f"likelihood at +{horizon}", "plausible, %", "height, cm", "speed, m/s",
        ),
        lines=tuple(lines),
        note=(
            "medians over starts, with 95% bootstrap intervals of the median; error in deviations "
            "of the data, of the likeliest rollout (the likeliest token at each place; of the "
            "ensemble the mean of its members at each step), as is plausibility; likelihood in nats "
            "a dimension, under sampled rollouts (of the ensemble a member each); the truth's error "
            f"is that of two true rollouts whose starts are {own[0]['nudge']} deviations apart, its "
            "likelihood that of the data's own deviations; hidden: positions alone are seen and "
            "predicted; chosen: the actions are the model's own, the ensemble's by behaviour cloning; "
            "plausible: healthy, joints within limits, energy as recorded where velocities are seen, "
            "over the later half; "
            "in range: no entry may leave the range of the data, which bins never do; in bins: the true "
            "dynamics whose every state is rounded to the tokens' bins; "
            "height and speed: Wasserstein distance from the true bodies' there"
        ),
    )  # fmt: skip


def _at(curve: Mapping[str, Sequence[float]], step: int) -> str:
    value, low, high = (curve[key][step - 1] for key in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def judge(context: Context, rows: Sequence[Row]) -> tuple[Held, str]:
    """For each body: is the sequence model nearer to the truth at the horizon, and are more of its
    bodies plausible, under recorded actions and under chosen ones, with intervals apart?"""
    whole = {
        (row["body"], row["method"], row["actions"]): row for row in rows if row["seen"] == WHOLE
    }
    names = [
        next((r for r in context.algorithms if r.startswith(p)), "") for p in (PLANNER, BASELINE)
    ]
    if not all(names):
        return "untested", "The published methods did not both take part."
    model, baseline = (algorithm_title(name) for name in names)
    cases, told, ahead, ratios = [], [], 0, []
    for body in context.settings["bodies"]:
        ours, theirs = (whole[body, name, RECORDED]["error"] for name in (model, baseline))
        binned = whole[body, IN_BINS, RECORDED]["error"]["value"][-1]
        bounded = whole[body, f"{baseline}, {IN_RANGE}", RECORDED]
        ratios.append(ours["value"][-1] / max(binned, 1e-9))
        cases.append(ours["high"][-1] < theirs["low"][-1])
        words = [f"error {ours['value'][-1]:.2f} against {theirs['value'][-1]:.2f} deviations"]
        for actions in (RECORDED, CHOSEN):
            pair = [whole[body, name, actions]["plausible_later"] for name in (model, baseline)]
            apart = pair[0]["interval"] and pair[1]["interval"]
            cases.append(bool(apart) and pair[0]["interval"][0] > pair[1]["interval"][1])
            ahead += cases[-1] and actions == RECORDED
            shares = " against ".join(f"{100 * each['share']:.0f}%" for each in pair)
            words.append(f"plausible with {actions} actions {shares}")
        words.append(
            f"the {baseline} kept in the data's range {bounded['error']['value'][-1]:.2f} and "
            f"{100 * bounded['plausible_later']['share']:.0f}%"
        )
        told.append(f"{ENVIRONMENTS[body]}: " + ", ".join(words))
    text = (
        f"At +{context.settings['horizon']} the {model} is clearly ahead of the {baseline} in "
        f"{sum(cases)} of {len(cases)} comparisons. "
        + "; ".join(told)
        + ". What to take from it: under "
        f"recorded actions more of the {model}'s bodies stay plausible on {ahead} of {len(told)} bodies, "
        "with intervals apart, and what it errs by then is what its bins round away: "
        f"{min(ratios):.2f} to {max(ratios):.2f} times the error of the true dynamics rounded so."
    )
    return context.held(sum(cases), of=len(cases)), text
