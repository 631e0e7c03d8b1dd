"""Pieces that several sections are made of."""

from __future__ import annotations

from collections.abc import Sequence

from trajlm.report.formatting import ABSENT
from trajlm.report.html import Child, Markup, tag


def section(identity: str, heading: str, *children: Child) -> Markup:
    """A section with its heading, reachable by `#identity`."""
    label = f"{identity}-heading"
    return tag(
        "section", tag("h2", heading, id=label), *children, id=identity, aria_labelledby=label
    )


def gap(text: str) -> Markup:
    """A place where something is missing, and why."""
    return tag("p", text, class_="gap")


def scroll(label: str, *children: Child) -> Markup:
    """A box that scrolls sideways by itself, reachable by keyboard."""
    return tag("div", *children, class_="scroll", role="region", aria_label=label, tabindex="0")


def definition_list(pairs: Sequence[tuple[str, str]]) -> Markup:
    return tag(
        "dl", (tag("div", tag("dt", label), tag("dd", value)) for label, value in pairs),
        class_="facts",
    )  # fmt: skip


def comparison(columns: Sequence[tuple[str, dict[str, str]]], *, caption: str) -> Markup:
    """A fact a line, an entry a column; lines that differ are marked."""
    labels = list(dict.fromkeys(label for _, values in columns for label in values))
    lines = []
    for label in labels:
        cells = [values.get(label, ABSENT) for _, values in columns]
        differs = len(set(cells)) > 1
        head = tag(
            "th", label, tag("span", " differs", class_="tagged") if differs else None, scope="row"
        )
        lines.append(tag("tr", head, (tag("td", cell) for cell in cells)))
    head = tag("tr", tag("td"), (tag("th", name, scope="col") for name, _ in columns))
    return scroll(caption, tag("table", tag("thead", head), tag("tbody", lines), class_="compare"))


def badge(text: str) -> Markup:
    """The letter of a protocol."""
    return tag("span", text, class_="badge", title=f"Protocol {text}")
