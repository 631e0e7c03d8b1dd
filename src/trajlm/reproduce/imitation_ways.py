"""The ways in which a model of expert data acts, what each returns, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.evaluation.scores import bootstrap_interval
from trajlm.reproduce.base import Table
from trajlm.runs.cells import Row

PUBLISHED = {"hopper": 104.0, "walker2d": 109.0}
"""Percent of the expert's return by beam search, mean of 15 runs."""
SEARCH, GREEDY, SAMPLING = "search", "greedy", "sampling"
WAYS = {
    GREEDY: {"search": "likelihood", "beam_width": 1, "horizon": 1},
    SAMPLING: {
        "search": "reward", "beam_width": 1, "num_samples": 1, "horizon": 1, "cdf_action": None,
        "top_k_observation": None, "top_k_reward": None,
    },
}  # fmt: skip
"""With one beam what is planned later changes no action, so a horizon of 1 is the whole of it. One
drawn candidate is kept whatever its score: each action token as probable as the model says."""


def alone(folder: Path, policy: Mapping[str, Any], *, seconds: float) -> float:
    """Milliseconds of one step of one environment with a full context, physics included, by the run in
    `folder` with these settings of its policy, on one thread; timed for `seconds` or one step."""
    from dataclasses import replace

    import torch

    from trajlm.core.config import overridden
    from trajlm.runs.folder import read_run
    from trajlm.runs.pace import acting_seconds
    from trajlm.training.checkpoint import artefact_folder, load_artefact

    config = read_run(folder)
    config = replace(config, policy=overridden(config.policy, dict(policy), name="policy"))
    model = load_artefact(artefact_folder(folder, which="last"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return 1e3 * acting_seconds(model, config, slots=1, seconds=seconds)
    finally:
        torch.set_num_threads(threads)


def row_of(
    recipe: str,
    body: str,
    way: str,
    rows: Sequence[Row],
    behaviour: Mapping[str, Any],
    *,
    name: str,
    alone: float,
) -> dict[str, Any]:
    """One method on one body, in percent of the behaviour's mean return: the mean over training
    seeds with its interval; of one seed, over its episodes. Cost in milliseconds a plan."""
    returns = [np.array(row["returns"], np.float64) for row in rows]
    shares = [100.0 * float(each.mean()) / behaviour["mean"] for each in returns]
    episodes = 100.0 * returns[0] / behaviour["mean"]
    several = len(shares) > 1
    steps = sum(row["timing"]["steps"] for row in rows)
    return {
        "recipe": recipe,
        "body": body,
        "way": way,
        "method": f"{name}, {way}" if way else name,
        "seeds": shares,
        "mean": float(np.mean(shares)),
        "interval": bootstrap_interval(shares if several else episodes),
        "interval_kind": f"95% bootstrap over {'training seeds' if several else 'episodes'}",
        "episodes": len(returns[0]),
        "return_mean": float(np.mean([each.mean() for each in returns])),
        "lowest": float(min(each.min() for each in returns)),
        "milliseconds": 1e3 * sum(row["timing"]["model_seconds"] for row in rows) / max(1.0, steps),
        "milliseconds_alone": alone,
        "published": PUBLISHED.get(body) if way.startswith(SEARCH) else None,
    }


def shares_table(
    rows: Sequence[Mapping[str, Any]], behaviours: Mapping[str, Any], *, seeds: int
) -> Table:
    bodies = list(behaviours)
    cells = {(row["method"], row["body"]): row for row in rows}
    lines = [
        (name, *(_share(cells.get((name, body))) for body in bodies)) for name in methods(rows)
    ]
    binned = {body: each.get("in_bins") for body, each in behaviours.items()}
    if any(binned.values()):
        lines.append(("behaviour in these bins", *(_in_bins(binned[body]) for body in bodies)))
        lines.append(("its action token, nats", *(_nats(binned[body], "nats") for body in bodies)))
        lines.append(("the model's", *(_nats(binned[body], "model_nats") for body in bodies)))
    lines.append(("behaviour, mean return", *(_behaviour(behaviours[body]) for body in bodies)))
    lines.append(("published, search", *(_number(PUBLISHED.get(body)) for body in bodies)))
    return Table(
        title="Percent of the behaviour's mean return",
        columns=("method", *bodies),
        lines=tuple(lines),
        note=(
            f"Training seeds: {seeds}. In brackets {rows[0]['interval_kind']}; n episodes a "
            f"seed; the behaviour: its episodes in the data. Greedy is beam width 1; "
            "sampling draws every token as the model believes. In these bins: acting by its likeliest "
            "bin, from one observation in bins; nats of held-out episodes, where the model sees several"
        ),
    )


def methods(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Search first, then what it is compared with."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    return sorted(names, key=lambda name: (f", {SEARCH}" not in name, ", " not in name))


def _share(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    ends = "" if row["interval"] is None else " [{:.1f}, {:.1f}]".format(*row["interval"])
    return f"{row['mean']:.1f}{ends}, n={row['episodes']}"


def _behaviour(found: Mapping[str, Any]) -> str:
    ends = "" if found["interval"] is None else " [{:,.0f}, {:,.0f}]".format(*found["interval"])
    return f"{found['mean']:,.0f}{ends}, n={found['episodes']}"


def _in_bins(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else _share({**found, "mean": found["share"]})


def _nats(found: Mapping[str, Any] | None, name: str) -> str:
    return "" if found is None or found[name] is None else f"{found[name]:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def costs_table(rows: Sequence[Mapping[str, Any]], behaviours: Mapping[str, Any]) -> Table:
    cells = {(row["method"], row["body"]): row for row in rows}
    lines = [
        (
            name,
            *(
                f"{cell['milliseconds']:.1f} / {cell['milliseconds_alone']:.1f}"
                if (cell := cells.get((name, body))) is not None
                else ""
                for body in behaviours
            ),
        )
        for name in methods(rows)
    ]
    return Table(
        title="What an action costs, milliseconds",
        columns=("method", *behaviours),
        lines=tuple(lines),
        note=(
            "one thread; with all episodes planned at once, a share of the time each / one environment "
            "alone, physics included"
        ),
    )
