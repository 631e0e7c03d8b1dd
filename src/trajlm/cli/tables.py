"""Tables on stdout: plain where stdout is no terminal, narrow where it is narrow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """`value` as JSON; a NaN or infinity, which JSON lacks, is an error here and not in a reader."""
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = ""
) -> None:
    """A table with its last columns right-aligned where they hold numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=False)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    lines = [list(row) for row in rows]
    for number, name in enumerate(columns):
        numeric = bool(lines) and all(isinstance(line[number], int | float) for line in lines)
        table.add_column(name, justify="right" if numeric or number else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(_cell(value)) for value in line))
    console.print(table)
    if caption:
        # Not the table's own caption, which would be broken at the table's width.
        print(caption)


def print_listing(title: str, rows: Iterable[Sequence[str]]) -> None:
    """Left-aligned columns under a title, without rules."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    console.print(Text(title, style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)


def print_results(results: Mapping[str, Any], *, caption: str = "") -> None:
    """The score table of a results.json, of one run or of a group of seeds."""
    protocol = results.get("protocol", {})
    rows = results["rows"]
    seeds = any("seeds" in row for row in rows)
    columns = ["asked for", "achieved", "95% interval", "d4rl", "dataset"]
    columns += ["seeds", "each seed"] if seeds else ["length", "episodes"]
    title = "  ".join(
        str(part)
        for part in (
            protocol.get("recipe"),
            protocol.get("env_id"),
            f"MuJoCo {protocol['mujoco']}" if protocol.get("mujoco") else None,
            f"{protocol['checkpoint_step']} updates" if protocol.get("checkpoint_step") else None,
        )
        if part
    )
    print_table(title, columns, [_result_line(row, seeds=seeds) for row in rows], caption=caption)
    failed = sum(int(row.get("failed", 0)) for row in rows)
    if failed:
        print(f"{failed} episodes failed and are left out of the means")


def _result_line(row: Mapping[str, Any], *, seeds: bool) -> list[str]:
    line = [
        _number(row.get("target_return"), missing="nothing"),
        _number(row.get("return_mean")),
        _interval(row.get("return_interval")),
        _number(row.get("d4rl_score"), digits=1),
        _number(row.get("dataset_score"), digits=1),
    ]
    if seeds:
        return [
            *line,
            str(len(row.get("return_means", []))),
            "  ".join(_number(mean) for mean in row.get("return_means", [])),
        ]
    return [*line, _number(row.get("length_mean")), str(row.get("episodes", ""))]


def _interval(value: Sequence[float] | None) -> str:
    return f"{_number(value[0])} to {_number(value[1])}" if value else "-"


def _number(value: float | None, *, digits: int = 0, missing: str = "-") -> str:
    return missing if value is None else f"{value:,.{digits}f}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)
