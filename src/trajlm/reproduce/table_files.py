"""The tables of a results.json as files: Markdown and LaTeX, for pages and papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trajlm.core.files import replace_file

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def markdown(table: Mapping[str, Any]) -> str:
    """A table of results.json in Markdown."""
    lines = [table["columns"], ["---"] + ["---:"] * (len(table["columns"]) - 1), *table["lines"]]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def latex(table: Mapping[str, Any]) -> str:
    """A table of results.json for LaTeX with the package booktabs; needs no other."""
    columns, caption = table["columns"], table["title"].rstrip(".")
    body = [_latex_line(columns), r"\midrule", *map(_latex_line, table["lines"])]
    told = ". ".join(filter(None, (caption, table["note"]))) + "."
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{told.translate(LATEX)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_line(cells: Sequence[str]) -> str:
    # Braces, so that a cell that begins with a bracket is no option of the line before.
    return " & ".join(f"{{{cell.translate(LATEX)}}}" for cell in cells) + r" \\"


def write_markdown(results: Mapping[str, Any], path: Path) -> Path:
    """All tables, with their notes, the verdict and the command that makes them."""
    lines = [f"# {results['title']}", "", results["verdict"], ""]
    for table in results["tables"]:
        lines += [f"{table['title']}", "", markdown(table), ""]
        lines += [table["note"], ""] if table["note"] else []
    lines += ["```sh", results["command"], "```", ""]
    replace_file(path, "\n".join(lines).encode())
    return path


def write_latex(results: Mapping[str, Any], path: Path) -> Path:
    """All tables, to be included in a document that loads booktabs; the command as a comment."""
    head = [f"% {results['command']}", r"% needs \usepackage{booktabs}"]
    tables = [latex(table) for table in results["tables"]]
    replace_file(path, "\n\n".join(["\n".join(head), *tables, ""]).encode())
    return path
