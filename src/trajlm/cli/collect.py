"""`trajlm collect BODY/TIER`: a dataset from the behaviours shipped with the package, or of a maze."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.cli.progress import reporting
from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CollectFlags:
    """Collect a dataset."""

    steps: int = 200_000
    """Environment steps."""
    seed: int = 0
    """Of the first episode; every episode's is recorded."""
    root: str | None = None
    """Where datasets lie; $MINARI_DATASETS_PATH or ~/.minari/datasets where not given."""
    processes: int | None = None
    """Processes that collect side by side; one a core where not given."""
    overwrite: bool = False
    """Collect again where the dataset is there."""
    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show details and tracebacks."""


def main(argv: Sequence[str]) -> int:
    name = argv[0] if argv and not argv[0].startswith("-") else None
    arguments = flags.parse(
        CollectFlags,
        argv[1:] if name else argv,
        prog="trajlm collect",
        description=(
            "trajlm collect BODY/TIER, for example halfcheetah/medium-expert or, of a maze, "
            "pointmaze-umaze/waypoints (trajlm list)."
        ),
    )
    if name is None:
        raise UsageError("no dataset; write trajlm collect halfcheetah/medium-expert")
    body, slash, tier = name.partition("/")
    if not slash:
        raise UsageError(f"{name!r} names no tier; write {name}/medium-expert")
    to_stderr(verbose=arguments.verbose)
    from trajlm.collect.collector import collect

    with reporting() as progress:
        path = collect(
            body,
            tier,
            steps=arguments.steps,
            seed=arguments.seed,
            root=None if arguments.root is None else Path(arguments.root),
            processes=arguments.processes,
            overwrite=arguments.overwrite,
            progress=lambda done, total: progress(f"collecting {name}", done / total),
        )
    if arguments.json:
        tables.print_json({"dataset": f"trajlm/{body}/{tier}-v0", "path": str(path)})
    else:
        print(f"minari:trajlm/{body}/{tier}-v0")
        print(path)
    return 0
