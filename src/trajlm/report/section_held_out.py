"""The loss on episodes that were not trained on, by their return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajlm.report.elements import gap, scroll, section
from trajlm.report.formatting import amount, count, finite
from trajlm.report.html import Markup, join, tag
from trajlm.report.records import Entry, Run

LOSS = "validation/loss"
MEANING = (
    "The mean loss after the last update on episodes left out of training, and the same by the "
    "return of the episode, in tenths of the dataset's returns. Losses of different algorithms have "
    "different units. Tenths without such an episode are not shown."
)

Decile = Mapping[str, Any]


def held_out(entries: Sequence[Entry]) -> Markup:
    """A table for each run or group; means over the seeds of a group."""
    blocks = [_entry(entry, named=len(entries) > 1) for entry in entries]
    return section("held-out", "Held-out loss", *blocks, tag("p", MEANING, class_="fine"))


def _entry(entry: Entry, *, named: bool) -> Markup:
    losses = [loss for run in entry.runs if (loss := _last_loss(run)) is not None]
    if not losses:
        return gap(f"{entry.name}: no episode was held out, or it has not been measured.")
    tables = [rows for run in entry.runs if (rows := _deciles(run))]
    columns = [("All", amount(float(np.mean(losses))))]
    for number in sorted({row["decile"] for rows in tables for row in rows}):
        seeds = [row for rows in tables for row in rows if row["decile"] == number]
        first = seeds[0]
        episodes = count(int(first["episodes"]), "episode")
        name = f"{amount(first['low'])} to {amount(first['high'])} ({episodes})"
        columns.append((name, amount(float(np.mean([row["loss"] for row in seeds])))))
    head = tag("thead", tag("tr", (tag("th", name, scope="col") for name, _ in columns)))
    line = tag("tbody", tag("tr", (tag("td", value) for _, value in columns)))
    table = scroll("Held-out loss", tag("table", head, line, class_="scores"))
    return join(tag("h3", entry.name) if named else None, table)


def _last_loss(run: Run) -> float | None:
    values = run.metrics.get(LOSS, {})
    return values[max(values)] if values else None


def _deciles(run: Run) -> list[Decile]:
    found = run.meta.get("held_out")
    keys = ("decile", "low", "high", "episodes", "loss")
    rows = found if isinstance(found, list) else []
    return [
        r for r in rows if isinstance(r, dict) and all(finite(r.get(k)) is not None for k in keys)
    ]
