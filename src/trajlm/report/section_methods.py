"""Methods over tasks: robust means, who beats whom, and performance profiles."""

from __future__ import annotations

from collections.abc import Sequence

from trajlm.core.errors import DataError
from trajlm.evaluation.scores import FEW_SEEDS
from trajlm.report.chart_profile import NAMES, profile
from trajlm.report.comparison import Comparison, Estimate, Method, compare
from trajlm.report.drawing import guarded, legend
from trajlm.report.elements import gap, scroll, section
from trajlm.report.formatting import amount, count, interval, score
from trajlm.report.html import Markup, join, tag
from trajlm.report.records import Entry

TITLES = {"mean": "Mean", "median": "Median", "iqm": "IQM", "optimality gap": "Optimality gap"}
UNITS = (
    "A score is that of one training seed on one dataset; of a method that is asked for returns, at "
    "the highest one that the data contains. IQM: the mean of the middle half of all scores. "
)
GAP = "Optimality gap: how far scores stay below 100, lower is better. "
INTERVALS = (
    "In brackets: 95% intervals, a bootstrap over training seeds within each dataset (Agarwal et al. "
    "2021)."
)


def methods(entries: Sequence[Entry]) -> Markup | None:
    """The section, or None where there is but one method."""
    try:
        comparison = compare(entries)
    except DataError as error:
        return section("methods", "Methods", gap(f"No average: {error}."))
    if comparison is None:
        return None
    chart = guarded(lambda: profile(comparison, key="profile"))
    keys = [(str(place), method.name) for place, method in enumerate(comparison.methods)]
    return section(
        "methods",
        "Methods",
        tag("p", _tasks(comparison)),
        scroll("Methods", _table(comparison)),
        _few_seeds(comparison),
        tag("h3", "How probable it is that a run of the row's method beats one of the column's"),
        scroll("Improvement", _improvement(comparison)),
        tag("figure", chart, legend(keys)),
        tag("p", _units(comparison), class_="fine"),
    )


def _tasks(comparison: Comparison) -> str:
    names = "; ".join(comparison.tasks)
    return f"{NAMES[comparison.scale]} over {count(len(comparison.tasks), 'dataset')}: {names}."


def _units(comparison: Comparison) -> str:
    has_gap = "optimality gap" in comparison.methods[0].statistics
    return UNITS + (GAP if has_gap else "") + INTERVALS


def _few_seeds(comparison: Comparison) -> Markup | None:
    fewest = min(method.num_seeds for method in comparison.methods)
    if fewest >= FEW_SEEDS:
        return None
    text = (
        f"As few as {count(fewest, 'training seed')} a method, fewer than {FEW_SEEDS}: intervals are "
        "themselves uncertain, and a single seed has none."
    )
    return tag("p", text, class_="warning", role="note")


def _table(comparison: Comparison) -> Markup:
    names = list(comparison.methods[0].statistics)
    titles = ["Method", "Training seeds", *(TITLES[name] for name in names)]
    head = tag("thead", tag("tr", (tag("th", title, scope="col") for title in titles)))
    lines = [_line(method, comparison.scale) for method in comparison.methods]
    return tag("table", head, tag("tbody", lines), class_="scores")


def _line(method: Method, scale: str) -> Markup:
    cells = [tag("td", amount(method.num_seeds))]
    cells += [tag("td", _shown(e, scale)) for e in method.statistics.values()]
    return tag("tr", tag("th", method.name, scope="row"), cells)


def _shown(estimate: Estimate, scale: str) -> str:
    form = amount if scale == "return_mean" else score
    text = form(estimate.value)
    return f"{text} ({interval(estimate.interval, of=form)})" if estimate.interval else text


def _improvement(comparison: Comparison) -> Markup:
    titles = [tag("td"), *(tag("th", m.name, scope="col") for m in comparison.methods)]
    lines = [
        tag(
            "tr",
            tag("th", first.name, scope="row"),
            (tag("td", _chance(comparison, first, second)) for second in comparison.methods),
        )
        for first in comparison.methods
    ]
    return tag("table", join(tag("thead", tag("tr", titles)), tag("tbody", lines)), class_="scores")


def _chance(comparison: Comparison, first: Method, second: Method) -> str:
    if first is second:
        return ""
    found = comparison.improvement(first, second)
    text = f"{100 * found.value:.0f}%"
    if found.interval is None:
        return text
    low, high = found.interval
    return f"{text} ({100 * low:.0f} to {100 * high:.0f}%)"
