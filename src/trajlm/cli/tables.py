"""Tables on stdout: plain where stdout is no terminal, narrow where it is narrow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from trajlm.evaluation.scores import FEW_SEEDS

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: Any) -> None:
    """`value` as JSON; a NaN or infinity, which JSON lacks, is an error here and not in a reader."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    align: Literal["left", "right"] = "left",
    caption: str = "",
    whole: int = 0,
) -> None:
    """A table with a title above it and a line of words under it; the first `whole` columns are
    not folded where the terminal is narrow."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify=align, overflow="fold", no_wrap=number < whole)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _console().print(table)
    if caption:
        # Not the table's own caption, which would be broken at the table's width.
        print(caption)


def print_listing(title: str, rows: Iterable[Sequence[str]]) -> None:
    """Left-aligned columns under a title, without rules."""
    from rich.table import Table
    from rich.text import Text

    console = _console()
    console.print(Text(title, style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    class Quiet(Console):
        """Leaves a closed pipe to `main`; rich's own way ends the process with status 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Quiet(file=sys.stdout, highlight=False)


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
    lines = [_result_line(row, seeds=seeds) for row in rows]
    print_table(title, columns, lines, align="right", caption=caption)
    failed = sum(int(row.get("failed", 0)) for row in rows)
    if failed:
        print(f"{failed} episodes failed and are left out of the means")
    fewest = min((len(row.get("return_means", [])) for row in rows), default=0)
    if seeds and fewest < FEW_SEEDS:
        print(f"{fewest} training seeds, fewer than {FEW_SEEDS}: the intervals are uncertain")
    elif not seeds:
        print("one training seed: intervals are over its episodes")


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


def _number(value: float | None, *, digits: int | None = None, missing: str = "-") -> str:
    if value is None:
        return missing
    from trajlm.report.formatting import amount

    return amount(value) if digits is None else f"{value:,.{digits}f}"
