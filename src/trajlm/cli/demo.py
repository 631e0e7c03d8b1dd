"""`trajlm demo`: data, two models, scores, plans, video and report in one command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.cli.progress import reporting

if TYPE_CHECKING:
    from trajlm.runs.demo import Demo
    from trajlm.runs.demo_planning import Planning

TITLE = "A half-cheetah: asked for returns, and planning ahead"


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Run the demo."""

    scale: Literal["full", "debug"] = "full"
    """debug: the same path in well under a minute, which learns nothing."""
    time_budget: float = 12.0
    """Minutes from here to the report; fewer updates are made where they would not fit."""
    output: str = "runs"
    """The runs are OUTPUT/demo and OUTPUT/demo-plan."""
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
            "A half-cheetah learns from collected data to run about as fast as it is asked to; "
            "a second model learns to foresee what comes, and plans. "
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
            build_report=partial(build_report, title=TITLE),
            output=Path(arguments.output),
            minutes=arguments.time_budget,
            seed=arguments.seed,
            progress=progress,
        )
    if arguments.json:
        tables.print_json(_facts(found))
        return 0
    tables.print_results(found.results, caption=found.note)
    _print_planning(found.planning)
    tables.print_listing("files", list(_files(found).items()))
    print(f"{found.seconds / 60:.1f} minutes")
    return 0


def _files(found: Demo) -> dict[str, str]:
    return {
        "report": str(found.page),
        "video": str(found.video) if found.video else "none could be drawn (trajlm doctor)",
        "run": str(found.folder),
        "planning": str(found.planning.folder),
        "plans": str(found.planning.plans),
        "data": str(found.dataset),
    }


def _facts(found: Demo) -> dict[str, Any]:
    planning = found.planning
    return {
        **found.results,
        "files": _files(found),
        "demo": {"updates": found.updates, "wanted": found.wanted, "seconds": found.seconds},
        "planning": {
            "updates": planning.updates,
            "wanted": planning.wanted,
            "accuracy": dict(planning.accuracy),
            "results": planning.results,
            "unscored": planning.unscored,
        },
    }


def _print_planning(planning: Planning) -> None:
    """What of held-out episodes the second model gets right, and its scores where it has any."""
    rows = []
    for kind in ("observation", "action", "reward", "value"):
        of_kind = {n: share for n, share in planning.accuracy.items() if n.startswith(kind)}
        if of_kind:
            ranked = sorted(of_kind, key=lambda name: -of_kind[name])
            best, worst = (f"{of_kind[name]:.0%} {name}" for name in (ranked[0], ranked[-1]))
            mean = f"{sum(of_kind.values()) / len(of_kind):.0%}"
            alone = len(of_kind) == 1
            rows.append([kind, str(len(of_kind)), mean, *(("", "") if alone else (best, worst))])
    made = f"{planning.updates:,}" + (
        f" of {planning.wanted:,}" if planning.updates < planning.wanted else ""
    )
    print(f"Trajectory Transformer, {made} updates: the likeliest token is the right one")
    columns = ["of held-out", "slots", "mean", "best slot", "worst slot"]
    guess = f"each token is one of {planning.num_bins} bins: a guess is right {1 / planning.num_bins:.0%}"
    if rows:
        tables.print_table("", columns, rows, align="right", caption=guess)
    if planning.results is None:
        print(planning.unscored)
        return
    every = f"{planning.beam_width} beams, a new plan every {planning.replan_every} steps"
    tables.print_results(planning.results, caption=every)
