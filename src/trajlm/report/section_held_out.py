"""The loss on episodes that were not trained on, by their return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajlm.report.elements import gap, scroll, section
from trajlm.report.formatting import ABSENT, amount, count, finite, plain
from trajlm.report.html import Markup, join, tag
from trajlm.report.records import Entry, Run

LOSS = "validation/loss"
NATS, ACCURACY = "validation/nats/", "validation/accuracy/"
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
    losses = [loss for run in entry.runs if (loss := _last(run, LOSS)) is not None]
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
    return join(tag("h3", entry.name) if named else None, table, _tokens(entry))


def _tokens(entry: Entry) -> Markup | None:
    """How well the held-out tokens of each slot were predicted; None for models without tokens."""
    slots = dict.fromkeys(
        name.removeprefix(ACCURACY)
        for run in entry.runs
        for name in run.metrics
        if name.startswith(ACCURACY)
    )
    if not slots:
        return None
    lines = [
        tag(
            "tr", tag("th", plain(slot, limit=60), scope="row"), (tag("td", text) for text in cells)
        )
        for slot in slots
        for cells in [_predicted(entry, slot)]
    ]
    head = tag("tr", (tag("th", name, scope="col") for name in ("Token", "Likeliest", "Nats")))
    table = tag("table", tag("thead", head), tag("tbody", lines), class_="scores")
    words = (
        f"{count(len(slots), 'token')} a step: the share of held-out tokens that were the likeliest, "
        "and the mean of minus the logarithm of their probability."
    )
    return tag(
        "details",
        tag("summary", "Held-out tokens, slot by slot"),
        tag("p", words, class_="fine"),
        scroll("Held-out tokens", table),
    )


def _predicted(entry: Entry, slot: str) -> tuple[str, str]:
    """Means over the runs of an entry, as text."""
    shares, nats = (
        [last for run in entry.runs if (last := _last(run, prefix + slot)) is not None]
        for prefix in (ACCURACY, NATS)
    )
    return (
        f"{np.mean(shares):.0%}" if shares else ABSENT,
        f"{np.mean(nats):.2f}" if nats else ABSENT,
    )


def _last(run: Run, name: str) -> float | None:
    values = run.metrics.get(name, {})
    return values[max(values)] if values else None


def _deciles(run: Run) -> list[Decile]:
    found = run.meta.get("held_out")
    keys = ("decile", "low", "high", "episodes", "loss")
    rows = found if isinstance(found, list) else []
    return [
        r for r in rows if isinstance(r, dict) and all(finite(r.get(k)) is not None for k in keys)
    ]
