"""The score table, its warnings, and the marks of rows that may not be compared."""

from __future__ import annotations

from collections.abc import Sequence

from trajlm.report.elements import badge, gap, scroll, section
from trajlm.report.facts import missing_evaluation
from trajlm.report.html import Markup, join, tag
from trajlm.report.readings import ProtocolGroup, by_protocol, differences, entry_warnings
from trajlm.report.records import Entry, Row
from trajlm.report.tables import SCORE_HEADINGS, score_cells

TITLES = {
    "asked": "Asked for",
    "reached": "Reached, mean",
    "95% interval": "95% interval",
    "interval over": "Interval over",
    "d4rl_score": "d4rl_score",
    "dataset_score": "dataset_score",
    "episodes": "Episodes",
    "failed": "Failed",
    "length": "Length, steps",
}
UNITS = (
    "Asked for and reached are returns: the sum of an episode's rewards, undiscounted. "
    "d4rl_score: 0 is D4RL's published random return, 100 its expert's. dataset_score: 0 is the "
    "random behaviour, 100 the expert behaviour. In brackets: the 95% interval."
)


def scores(entries: Sequence[Entry]) -> Markup:
    """The score table, one body for each protocol, and what to know before quoting it."""
    groups = by_protocol(entries)
    missing = [
        gap(f"{run.name}: {missing_evaluation(run)}")
        for entry in entries
        for run in entry.runs
        if run.evaluation is None
    ]
    missing += [gap(f"{e.name}: {missing_evaluation(None)}") for e in entries if not e.runs]
    if not groups:
        return section("scores", "Scores", *missing)
    mixed = len(groups) > 1
    table = _table(
        [_body(group, named=len(entries) > 1, mixed=mixed) for group in groups],
        named=len(entries) > 1,
        mixed=mixed,
    )
    return section(
        "scores",
        "Scores",
        _not_comparable(groups) if mixed else None,
        scroll("Scores", table),
        _warnings(entries),
        *missing,
        _each_seed(entries),
        tag("p", UNITS, class_="fine"),
    )


def _table(bodies: Sequence[Markup], *, named: bool, mixed: bool) -> Markup:
    titles = [("Run", "name")] * named + [("Protocol", "mark")] * mixed
    titles += [(TITLES[name], "") for name in SCORE_HEADINGS]
    head = tag("tr", (tag("th", title, scope="col", class_=kind or None) for title, kind in titles))
    return tag("table", tag("thead", head), bodies, class_="scores")


def _body(group: ProtocolGroup, *, named: bool, mixed: bool) -> Markup:
    lines = []
    if mixed:
        text = join(badge(group.letter), " ", group.description)
        span = str(len(SCORE_HEADINGS) + named + 1)
        cell = tag("th", tag("span", text, class_="stay"), scope="rowgroup", colspan=span)
        lines.append(tag("tr", cell, class_="protocol"))
    for entry, rows in group.members:
        lines += _lines(entry.name if named else None, rows, mark=group.letter if mixed else None)
    return tag("tbody", lines)


def _lines(name: str | None, rows: Sequence[Row], *, mark: str | None = None) -> list[Markup]:
    """A line for each row; the run's name stands once, beside all of them."""
    lines = []
    for number, row in enumerate(rows):
        first = None
        if name is not None and number == 0:
            first = tag("th", name, scope="rowgroup", rowspan=str(len(rows)))
        marked = tag("td", badge(mark), class_="mark") if mark is not None else None
        cells = [tag("td", cell) for cell in score_cells(row)]
        new_run = name is not None and number == 0
        lines.append(tag("tr", first, marked, cells, class_="first" if new_run else None))
    return lines


def _not_comparable(groups: Sequence[ProtocolGroup]) -> Markup:
    first, *others = (group.pairs for group in groups)
    names = dict.fromkeys(name for other in others for name in differences(first, other))
    letters = ", ".join(group.letter for group in groups)
    return tag(
        "p",
        tag("strong", "Not comparable across protocols. "),
        f"Rows marked {letters} were measured differently: {', '.join(names)}. "
        "Compare rows of one letter only.",
        class_="warning",
        role="note",
    )


def _warnings(entries: Sequence[Entry]) -> Markup | None:
    """Each warning once, with the runs it holds for where it does not hold for all."""
    holders: dict[str, list[str]] = {}
    for entry in entries:
        for text in entry_warnings(entry):
            holders.setdefault(text, []).append(entry.name)
    if not holders:
        return None
    lines = [
        tag("li", text)
        if len(names) == len(entries)
        else tag("li", tag("strong", ", ".join(names)), ": ", text)
        for text, names in holders.items()
    ]
    return tag("ul", lines, class_="warning", role="note")


def _each_seed(entries: Sequence[Entry]) -> Markup | None:
    """The rows behind the rows of a group."""
    lines = [
        line
        for entry in entries
        if entry.is_group
        for run in entry.runs
        if run.evaluation is not None
        for line in _lines(run.name, run.evaluation.rows)
    ]
    if not lines:
        return None
    table = _table([tag("tbody", lines)], named=True, mixed=False)
    return tag("details", tag("summary", "Each training seed by itself"), scroll("Seeds", table))
