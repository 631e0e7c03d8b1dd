"""docs/gallery.md: every experiment with its committed picture, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trajlm.core.errors import DataError
from trajlm.core.files import replace_file
from trajlm.core.formats import REPRODUCTION_FORMAT
from trajlm.reproduce import catalogue
from trajlm.reproduce.base import Experiment
from trajlm.reproduce.picture import PICTURE
from trajlm.reproduce.table_files import markdown
from trajlm.runs.folder import read_json

PAGE = Path("docs") / "gallery.md"
RESULTS = Path("results")
PICTURES = (".png", ".svg", ".gif")
HELD = {
    "yes": "It held.",
    "partly": "It held in part.",
    "no": "It did not hold.",
    "untested": "This size cannot say.",
}
HEAD = """# Gallery

Published experiments, each made anew by one command, from data that the project makes itself.
`trajlm reproduce` lists them; `trajlm reproduce --gallery` writes this page from `results/`.
"""


def write_gallery(repository: Path) -> Path:
    """Write the page of a checkout. Raises `DataError` where it holds no results."""
    text = gallery(repository / RESULTS)
    replace_file(repository / PAGE, text.encode())
    return repository / PAGE


def gallery(results: Path) -> str:
    """The page's text, from RESULTS/NAME/results.json of every experiment."""
    if not results.is_dir():
        raise DataError(f"{results}: no such folder; call this in the project's checkout")
    sections = [
        section(experiment, read_results(results / name))
        for name, experiment in catalogue.experiments().items()
    ]
    return "\n".join([HEAD, *sections])


def read_results(folder: Path) -> Mapping[str, Any] | None:
    """A committed results.json; None where there is none. Raises `DataError` for another format."""
    file = folder / "results.json"
    if not file.is_file():
        return None
    found = read_json(file)
    if found.get("format") != REPRODUCTION_FORMAT:
        raise DataError(f"{file}: format {found.get('format')!r} is not {REPRODUCTION_FORMAT!r}")
    return found


def section(experiment: Experiment, results: Mapping[str, Any] | None) -> str:
    """One experiment: question, claim, published figures, and what was found."""
    lines = [f"## {experiment.title}", "", experiment.question, ""]
    lines += [f"**Published** ({experiment.source}): {experiment.claim}", ""]
    lines += ["| published | figure | where |", "|---|---|---|"]
    lines += [f"| {each.what} | {each.value} | {each.where} |" for each in experiment.published]
    lines += [""]
    if results is None:
        usual = f"trajlm reproduce {experiment.name} --scale small"
        return "\n".join([*lines, f"No results are committed yet. `{usual}`", ""])
    place = f"../{RESULTS}/{experiment.name}"
    lines += [f"**Found**: {HELD[results['held']]} {results['verdict']}", ""]
    lines += [f"![{experiment.alt}]({place}/{PICTURE}.png)", ""]
    for name in experiment.further:
        if Path(name).suffix in PICTURES:
            lines += [f"![{experiment.title}: {Path(name).stem}]({place}/{name})", ""]
        else:
            lines += [f"The tables as a file: [{name}]({place}/{name})", ""]
    for table in results["tables"]:
        lines += [
            f"{table['title']}",
            "",
            markdown(table),
            "",
            *([table["note"], ""] if table["note"] else []),
        ]
    lines += ["```sh", results["command"], "```", "", made(results, place), ""]
    return "\n".join(lines)


def made(results: Mapping[str, Any], place: str) -> str:
    """Scale, seeds, time and machine, with the way to every command."""
    maker, protocol = results["made_by"][-1], results["protocol"]
    seeds = len(protocol["seeds"])
    return (
        f"Scale {protocol['scale']}, {seeds} seed{'s' * (seeds != 1)}, {results['seconds'] / 60:.0f} minutes "
        f"on {maker['machine']}; trajlm {maker['versions']['trajlm']}, torch {maker['versions']['torch']}. "
        f"Every number and every training's command: [results.json]({place}/results.json)."
    )
