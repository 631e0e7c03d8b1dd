"""The sections under the results: the data, the protocol, what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from trajlm.report.elements import comparison, definition_list, gap, scroll, section
from trajlm.report.facts import dataset_facts, dataset_name, protocol_facts
from trajlm.report.formatting import amount
from trajlm.report.html import Markup, join, tag
from trajlm.report.readings import quantile_pairs
from trajlm.report.records import Entry

LEVELS = {0.0: "lowest", 0.5: "median", 1.0: "highest"}
INTERVALS = (
    "Intervals are 95% bootstrap intervals of the mean: over episodes for one training seed, over "
    "the seeds' means for several."
)


def dataset(entries: Sequence[Entry]) -> Markup:
    """Each dataset's summary once."""
    blocks: list[Markup] = []
    seen = []
    for entry in entries:
        if not entry.dataset:
            text = f"{entry.name}: nothing is known of its data (no readable dataset.json)."
            blocks.append(gap(text))
        elif entry.dataset not in seen:
            seen.append(entry.dataset)
            blocks.append(_dataset(entry))
    return section("data", "The data", *blocks)


def _dataset(entry: Entry) -> Markup:
    pairs = quantile_pairs(entry.dataset)
    table = None
    if pairs:
        names = [LEVELS.get(level, f"{100 * level:g}%") for level, _ in pairs]
        head = tag("thead", tag("tr", (tag("th", name, scope="col") for name in names)))
        line = tag("tbody", tag("tr", (tag("td", amount(value)) for _, value in pairs)))
        quantiles = scroll("Quantiles", tag("table", head, line, class_="scores"))
        table = join(tag("h4", "Quantiles of the episodes' returns"), quantiles)
    facts = definition_list(dataset_facts(entry.dataset))
    return join(tag("h3", dataset_name(entry)), facts, table)


def protocol(entries: Sequence[Entry]) -> Markup:
    """Everything the results say about how they were measured."""
    columns = [(entry.name, pairs) for entry in entries if (pairs := protocol_facts(entry))]
    if not columns:
        return section("protocol", "Protocol", gap("None: no run has been evaluated."))
    if len(columns) == 1:
        body = definition_list(columns[0][1])
    else:
        body = comparison([(name, dict(pairs)) for name, pairs in columns], caption="Protocols")
    return section("protocol", "Protocol", body, tag("p", INTERVALS, class_="fine"))


def gaps(entries: Sequence[Entry]) -> Markup | None:
    """Files that were missing or broken."""
    lines = [
        tag("li", tag("strong", entry.name), ": ", text) for entry in entries for text in entry.gaps
    ]
    return section("missing", "What is missing", tag("ul", lines)) if lines else None
