"""The sections that hold charts: asked and reached, episodes, training.

Curves that may not be compared never share a chart: there is one for each protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trajlm.report import chart_conditioning, chart_episodes, chart_training
from trajlm.report.drawing import Series, guarded, legend, series_of
from trajlm.report.elements import badge, gap, section
from trajlm.report.formatting import count, finite
from trajlm.report.html import Markup, join, tag
from trajlm.report.readings import (
    ProtocolGroup,
    best_return,
    by_protocol,
    headline_row,
    histogram,
    sentence,
)
from trajlm.report.records import Entry

FEW_SENTENCES = 8


def conditioning(entries: Sequence[Entry]) -> Markup:
    """The return-conditioning curve, and the same in words."""
    groups = by_protocol(entries)
    figures = []
    for number, group in enumerate(groups):
        members = _members(entries, group)
        if any(one.conditioned for one in members):
            figure = _conditioning_figure(members, group, key=f"asked-{number}")
            figures += [_heading(groups, group), figure]
    if not figures:
        why = "no row was asked for a return" if groups else "no run has been evaluated"
        figures.append(gap(f"No curve: {why}."))
    return section("conditioning", "Does it do what it is asked?", *figures)


def _members(entries: Sequence[Entry], group: ProtocolGroup) -> list[Series]:
    """The runs measured by this protocol, in the colours they have all over the page."""
    every = series_of(entries)
    places = {id(entry): place for place, entry in enumerate(entries)}
    return [replace(every[places[id(entry)]], rows=rows) for entry, rows in group.members]


def _heading(groups: Sequence[ProtocolGroup], group: ProtocolGroup) -> Markup | None:
    if len(groups) == 1:
        return None
    return tag("h3", badge(group.letter), " ", group.description)


def _conditioning_figure(members: Sequence[Series], group: ProtocolGroup, *, key: str) -> Markup:
    data = next((entry.dataset for entry, _ in group.members if entry.dataset), {})
    counts, best = histogram(data), best_return(data)
    chart = guarded(
        lambda: chart_conditioning.conditioning(members, key=key, histogram=counts, best=best)
    )
    rows = [(one, row) for one in members for row in one.rows]
    keys = [(str(one.index), one.name) for one in members]
    keys += [("interval", "95% interval"), ("identity", "exactly as asked")]
    keys += [("cross", "one training seed")] * any(one.seed_means(row) for one, row in rows)
    keys += [("area", "episodes in the data")] * (counts is not None)
    keys += [("beyond", "beyond the best episode in the data")] * (best is not None)
    caption = "On the dashed line the agent reaches exactly what it is asked for."
    if counts is not None:
        caption += " Below the curve: how often the data contains such a return."
    said = [
        tag("li", f"{one.name}: " if len(members) > 1 else None, f"{sentence(row)}.")
        for one, row in rows
    ]
    return join(
        tag("figure", chart, legend(keys), tag("figcaption", caption)),
        None if counts else gap("The returns in the data are unknown: dataset.json lacks them."),
        _in_words(said),
    )


def _in_words(said: Sequence[Markup]) -> Markup:
    listing = tag("ul", said, class_="said")
    if len(said) <= FEW_SENTENCES:
        return join(tag("h3", "In words"), listing)
    return tag("details", tag("summary", f"In words ({count(len(said), 'row')})"), listing)


def episodes(entries: Sequence[Entry]) -> Markup:
    """Every evaluated episode as a dot."""
    groups = by_protocol(entries)
    figures: list[Markup | None] = []
    for number, group in enumerate(groups):
        members = _members(entries, group)
        if any(one.episodes for one in members):
            figure = _episodes_figure(members, key=f"episodes-{number}")
            figures += [_heading(groups, group), figure]
    if not figures:
        figures.append(gap("No episodes: no evaluation left an episodes.csv."))
    return section("episodes", "Every episode", *figures)


def _episodes_figure(members: Sequence[Series], *, key: str) -> Markup:
    chart = guarded(lambda: chart_episodes.strip(members, key=key))
    every = [episode for one in members for episode in one.episodes]
    several = len(members) > 1
    keys = [(str(one.index), one.name if several else "one episode") for one in members]
    keys += [("hollow", "ended early")] * any(e.terminated and not e.failed for e in every)
    keys += [("cross", "failed")] * any(e.failed for e in every)
    keys += [("mean", "mean and 95% interval"), ("tick", "return asked for")]
    text = f"{count(len(every), 'episode')}. Heights inside a row only spread the dots."
    if any(len(one.episodes) > chart_episodes.MAX_DOTS for one in members):
        text += f" At most {chart_episodes.MAX_DOTS} dots a row are drawn."
    return tag("figure", chart, legend(keys), tag("figcaption", text))


def training(entries: Sequence[Entry]) -> Markup:
    """Loss, learning rate, gradient norm, updates per second; returns at each evaluation."""
    series = series_of(entries)
    row = next((r for e in entries if (r := headline_row(e.rows, best=best_return(e.dataset)))), {})
    target = finite(row.get("target_return"))
    chart = guarded(lambda: chart_training.training(series, key="training", target=target))
    without = [
        gap(f"{run.name} has no training curves: metrics.jsonl is missing or empty.")
        for entry in entries
        for run in entry.runs
        if not run.metrics
    ]
    if chart is None:
        return section("training", "Training", *without)
    keys = [(str(one.index), one.name) for one in series if one.metrics] * (len(series) > 1)
    keys += [("line", "training batches")]
    held_out = any(metrics.get("validation/loss") for one in series for metrics in one.metrics)
    keys += [("points", "held-out episodes")] * held_out
    return section("training", "Training", tag("figure", chart, legend(keys)), *without)
