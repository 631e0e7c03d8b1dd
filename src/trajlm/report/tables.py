"""Score tables as plain data, and as Markdown or aligned text.

A row is a mapping as in `results.json`; what it lacks is shown as a dash. The page, the command
line and the README all draw from `score_table`, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trajlm.report.formatting import ABSENT, amount, asked, count, finite, interval, plain, score

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headings, rows of equally many cells, and the columns that hold numbers."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.headings) for row in self.rows)


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
WORDS = ("run", "interval over")


def score_table(rows: Sequence[Row], *, names: Sequence[str] | None = None) -> Table:
    """One row for each target return; `names`, one a row, puts the run first."""
    first = [(plain(name),) for name in names] if names is not None else [()] * len(rows)
    headings = SCORE_HEADINGS if names is None else ("run", *SCORE_HEADINGS)
    cells = tuple(start + score_cells(row) for start, row in zip(first, rows, strict=True))
    numeric = frozenset(i for i, name in enumerate(headings) if name not in WORDS)
    return Table(headings=headings, rows=cells, numeric=numeric)


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


def to_markdown(table: Table) -> str:
    """A GitHub-flavoured Markdown table; pipes and line ends inside cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(plain(c).replace("|", "\\|") for c in cells) + " |"

    rule = ["---:" if i in table.numeric else "---" for i in range(len(table.headings))]
    lines = [line(table.headings), "| " + " | ".join(rule) + " |", *map(line, table.rows)]
    return "\n".join(lines) + "\n"


def to_text(table: Table) -> str:
    """Columns aligned with spaces, numbers to the right, no control characters."""
    rows = [tuple(plain(cell) for cell in row) for row in (table.headings, *table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.headings))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in table.numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"
