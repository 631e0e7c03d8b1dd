"""`trajlm report RUN...`: one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ReportFlags:
    """Write a page."""

    output: str | None = None
    """The page; report.html in the run's folder where there is one run."""
    json: bool = False
    """Print where the page is as JSON."""
    verbose: bool = False
    """Show details and tracebacks."""


def main(argv: Sequence[str]) -> int:
    count = next((n for n, token in enumerate(argv) if token.startswith("-")), len(argv))
    folders = [Path(token) for token in argv[:count]]
    arguments = flags.parse(
        ReportFlags,
        argv[count:],
        prog="trajlm report",
        description=(
            "trajlm report RUN... [--output PAGE]: one self-contained HTML page of runs and groups."
        ),
    )
    if not folders:
        raise UsageError("no run; write trajlm report runs/NAME")
    to_stderr(verbose=arguments.verbose)
    from trajlm.report.page import build_report

    beside = folders[0] if len(folders) == 1 else Path.cwd()
    output = Path(arguments.output) if arguments.output else beside / "report.html"
    page = build_report(folders, output)
    if arguments.json:
        tables.print_json({"page": str(page)})
    else:
        print(page)
    return 0
