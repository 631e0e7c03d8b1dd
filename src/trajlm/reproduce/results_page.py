"""The generated part of docs/results.md: the committed table of methods and datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trajlm.core.errors import DataError
from trajlm.core.files import replace_file
from trajlm.reproduce import catalogue
from trajlm.reproduce.gallery import RESULTS, made, read_results
from trajlm.reproduce.picture import PICTURE
from trajlm.reproduce.table_files import markdown

PAGE = Path("docs") / "results.md"
TABLE = "locomotion-table"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def write_results_page(repository: Path) -> Path:
    """Put the table into the page of a checkout. Raises `DataError` where it has no place there."""
    path = repository / PAGE
    text = filled(path.read_text(), read_results(repository / RESULTS / TABLE))
    replace_file(path, text.encode())
    return path


def filled(text: str, results: Mapping[str, Any] | None) -> str:
    """The page with what lies between its two marks made anew."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise DataError(f"{PAGE}: the table goes between {BEGIN} and {END}, each there once")
    before, rest = text.split(BEGIN)
    return "\n".join([before + BEGIN, *_table(results), END + rest.split(END)[1]])


def _table(results: Mapping[str, Any] | None) -> list[str]:
    if results is None:
        usual = f"trajlm reproduce {TABLE} --scale small"
        return [f"No table is committed yet; `{usual}` makes it, whole or in parts."]
    experiment, place = catalogue.experiment(TABLE), f"../{RESULTS}/{TABLE}"
    lines = [results["verdict"], "", f"![{experiment.alt}]({place}/{PICTURE}.png)"]
    for table in results["tables"]:
        lines += ["", f"**{table['title']}**", "", markdown(table), "", table["note"]]
    return [*lines, "", "```sh", results["command"], "```", "", made(results, place)]
