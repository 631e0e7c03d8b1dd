"""`trajlm bench [NAME...]`: speed beside the published implementations, as ratios of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.core.errors import UsageError, suggestion

NAMES = ("training", "evaluation", "data", "training-tt", "plan", "learning")
QUICK = NAMES[:-1]


@dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """Measure."""

    data: str | None = None
    """The dataset of `learning`, noise of HalfCheetah's shapes by default; and of the pasts that a
    `run` plans from, random tokens by default."""
    run: str | None = None
    """A Trajectory Transformer's run, for `plan` with trained weights besides random ones."""
    threads: int | None = None
    """Threads of both sides; all cores by default."""
    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show details and tracebacks."""


def main(argv: Sequence[str]) -> int:
    count = next((n for n, token in enumerate(argv) if token.startswith("-")), len(argv))
    names = tuple(argv[:count]) or QUICK
    arguments = flags.parse(
        BenchFlags,
        argv[count:],
        prog="trajlm bench",
        description=(
            f"trajlm bench [{' | '.join(NAMES)}]: what is measured, each beside its baseline; all "
            "but learning by default, some minutes. Use a quiet machine and read the ratios."
        ),
    )
    for name in names:
        if name not in NAMES:
            near = suggestion(name, NAMES) or f"; known: {', '.join(NAMES)}"
            raise UsageError(f"unknown benchmark {name!r}{near}")
    to_stderr(verbose=arguments.verbose)
    import torch

    from trajlm.bench.suite import SUITE, Given
    from trajlm.data.load import load_dataset

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    store = load_dataset(arguments.data) if arguments.data else None
    given = Given(store=store, run=Path(arguments.run) if arguments.run else None)
    rows = [row for name in names for row in SUITE[name](given)]
    if arguments.json:
        tables.print_json([asdict(row) for row in rows])
    else:
        lines = [
            (row.what, row.ours, row.baseline, "" if row.ratio is None else f"{row.ratio:.2f}x")
            for row in rows
        ]
        tables.print_table("", ["what", "trajlm", "beside", "ratio"], lines)
    return 0
