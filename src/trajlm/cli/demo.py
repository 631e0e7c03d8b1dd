"""`trajlm demo`: data, training, scores, video and report in one command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.cli.progress import reporting


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Run the demo."""

    scale: Literal["full", "debug"] = "full"
    """debug: the same path in well under a minute, which learns nothing."""
    time_budget: float = 9.0
    """Minutes from here to the report; fewer updates are made where they would not fit."""
    output: str = "runs"
    """The run is OUTPUT/demo."""
    seed: int = 0
    """Of the data and the training."""
    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show details and tracebacks."""


def main(argv: Sequence[str]) -> int:
    arguments = flags.parse(
        DemoFlags,
        argv,
        prog="trajlm demo",
        description=(
            "A half-cheetah learns from collected data to run about as fast as it is asked to. "
            "A second call takes what is there."
        ),
    )
    to_stderr(verbose=arguments.verbose)
    print(f"at most {arguments.time_budget:g} minutes", file=sys.stderr, flush=True)
    from trajlm.report.page import build_report
    from trajlm.runs.demo import demo

    with reporting() as progress:
        found = demo(
            arguments.scale,
            build_report=build_report,
            output=Path(arguments.output),
            minutes=arguments.time_budget,
            seed=arguments.seed,
            progress=progress,
        )
    files = {
        "report": str(found.page),
        "video": str(found.video) if found.video else "none could be drawn (trajlm doctor)",
        "run": str(found.folder),
        "data": str(found.dataset),
    }
    if arguments.json:
        facts = {"updates": found.updates, "wanted": found.wanted, "seconds": found.seconds}
        tables.print_json({**found.results, "files": files, "demo": facts})
        return 0
    tables.print_results(found.results, caption=f"{found.note}; {found.seconds / 60:.1f} minutes")
    tables.print_listing("files", list(files.items()))
    return 0
