"""The cells of a score table, from rows as in `results.json`; what one lacks is shown as a dash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajlm.report.formatting import ABSENT, amount, asked, count, finite, interval, score

Row = Mapping[str, Any]


SCORE_HEADINGS = (
    "asked",
    "reached",
    "95% interval",
    "interval over",
    "d4rl_score",
    "dataset_score",
    "episodes",
    "failed",
    "length",
)


def score_cells(row: Row) -> tuple[str, ...]:
    """The cells under `SCORE_HEADINGS`."""
    return (
        asked(row.get("target_return")),
        amount(row.get("return_mean")),
        interval(row.get("return_interval")),
        interval_kind(row),
        _scored(row, "d4rl"),
        _scored(row, "dataset"),
        amount(row.get("episodes")),
        amount(row.get("failed")),
        amount(row.get("length_mean")),
    )


def over_seeds(row: Row) -> bool:
    """Whether the row's interval is over training seeds; else it is over episodes."""
    return "seed" in str(row.get("interval_kind", ""))


def interval_kind(row: Row) -> str:
    """What the interval is over: '50 episodes' or '3 seeds'."""
    if row.get("interval_kind") is None:
        return ABSENT
    kind, number = "episode", finite(row.get("episodes"))
    if over_seeds(row):
        kind, number = "seed", num_seeds(row)
    return f"{kind}s" if number is None else count(int(number), kind)


def num_seeds(row: Row) -> int | None:
    """Training seeds behind a row of a group; None where the row does not say."""
    seeds = row.get("seeds", row.get("return_means"))
    if isinstance(seeds, list | tuple):
        return len(seeds)
    number = finite(seeds)
    return None if number is None else int(number)


def _scored(row: Row, name: str) -> str:
    value, ends = row.get(f"{name}_score"), row.get(f"{name}_interval")
    text, span = score(value), interval(ends, of=score)
    return text if span == ABSENT else f"{text} ({span})"
