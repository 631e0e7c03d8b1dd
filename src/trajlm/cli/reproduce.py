"""`trajlm reproduce [NAME]`: a published experiment in one command, with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.cli.progress import reporting
from trajlm.core.errors import UsageError
from trajlm.reproduce import catalogue, selection
from trajlm.reproduce.base import Experiment
from trajlm.reproduce.context import Context

LISTED = ("small", "paper")


@dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """Reproduce."""

    scale: str = "small"
    """small: minutes on two cores; paper: the published size; debug: seconds, learns nothing."""
    seeds: int | None = None
    """How many training seeds; the experiment's own number by default."""
    algorithms: tuple[str, ...] = ()
    """Recipes that take part, ALGORITHM/RECIPE, installed ones too; the experiment's by default."""
    output: str | None = None
    """The run folder; runs/reproduce/NAME-SCALE by default. One that is there is gone on with."""
    data: tuple[str, ...] = ()
    """Data of your own in place of the experiment's, files or ids, where it takes them."""
    cells: bool = False
    """List the trainings of an experiment that can be made in parts, with their commands; run nothing."""
    only: tuple[str, ...] = ()
    """Run these trainings alone, by name or shell pattern; results are made of what is there."""
    kept: bool = False
    """Make the results of the trainings that are there; run nothing."""
    workers: int = 2
    """Trainings at a time, each with one thread."""
    gallery: bool = False
    """Write docs/gallery.md and the table of docs/results.md from results/, in a checkout; run nothing."""
    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show details and tracebacks."""


def main(argv: Sequence[str]) -> int:
    name = argv[0] if argv and not argv[0].startswith("-") else None
    arguments = flags.parse(
        ReproduceFlags,
        argv[1:] if name else argv,
        prog="trajlm reproduce",
        description=(
            "trajlm reproduce lists the experiments, trajlm reproduce NAME runs one: it collects, "
            "trains, evaluates and draws. Stopped at any moment, the same command goes on."
        ),
    )
    to_stderr(verbose=arguments.verbose)
    if arguments.gallery:
        from trajlm.reproduce.gallery import write_gallery
        from trajlm.reproduce.results_page import write_results_page

        print(write_gallery(Path.cwd()))
        print(write_results_page(Path.cwd()))
        return 0
    if name is None:
        _list(as_json=arguments.json)
        return 0
    from trajlm.reproduce.reproduce import prepare, reproduce

    asked: Any = {
        "scale": arguments.scale,
        "seeds": arguments.seeds,
        "algorithms": arguments.algorithms,
        "output": None if arguments.output is None else Path(arguments.output),
        "data": arguments.data,
    }
    if arguments.kept and arguments.only:
        raise UsageError("--kept runs nothing and --only some trainings: give one of them")
    if arguments.cells:
        _list_cells(*prepare(name, **asked), as_json=arguments.json)
        return 0
    with reporting() as progress:
        results, folder = reproduce(
            name,
            **asked,
            only=() if arguments.kept else arguments.only or None,
            workers=arguments.workers,
            progress=progress,
        )
    if arguments.json:
        tables.print_json({**results, "folder": str(folder)})
    else:
        _print(results, folder)
    return 0


def _list(*, as_json: bool) -> None:
    found = catalogue.experiments()
    if as_json:
        tables.print_json(
            [
                {
                    "name": each.name,
                    "question": each.question,
                    "claim": each.claim,
                    "algorithms": list(each.algorithms),
                    "scales": {
                        scale: {
                            "minutes": each.scales[scale].minutes,
                            "size": each.scales[scale].size,
                            "seeds": each.scales[scale].seeds,
                        }
                        for scale in LISTED
                    },
                }
                for each in found.values()
            ]
        )
        return
    rows = [
        [each.name, each.question, *(_scale(each.scales[scale]) for scale in LISTED)]
        for each in found.values()
    ]
    caption = "times on two cores; trajlm reproduce NAME --scale small"
    tables.print_table("", ["experiment", "question", *LISTED], rows, caption=caption, whole=1)


def _list_cells(experiment: Experiment, context: Context, *, as_json: bool) -> None:
    """A line each, its parts between tabs, so that other programs can take them apart."""
    found = selection.listed(experiment, context)
    if as_json:
        tables.print_json(found)
        return
    for each in found:
        print(each["name"], "there" if each["there"] else "missing", each["command"], sep="\t")


def _scale(scale: Any) -> str:
    time = f"{scale.minutes:g} min" if scale.minutes < 120 else f"{scale.minutes / 60:.0f} h"
    return f"{time}: {scale.size}"


def _print(results: dict[str, Any], folder: Path) -> None:
    for table in results["tables"]:
        tables.print_table(
            table["title"], table["columns"], table["lines"], align="right", caption=table["note"]
        )
    print(f"claim: {results['claim']}")
    print(f"held: {results['held']}. {results['verdict']}")
    files = {"picture": folder / "picture.png", "results": folder / "results.json"}
    tables.print_listing("", [(key, str(path)) for key, path in files.items()])
    print(f"{results['seconds'] / 60:.1f} minutes")
