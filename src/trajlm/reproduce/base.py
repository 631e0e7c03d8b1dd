"""The contract of an experiment: its question, what was published, and the two functions it is.

An experiment is a file in `experiments/` with a constant `EXPERIMENT`. `run` measures and returns
plain data, `draw` makes the picture of that data and of nothing else, so that a picture can be drawn
again from a results.json. Torch-free, so that `trajlm reproduce` lists at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trajlm.core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trajlm.reproduce.context import Context
    from trajlm.runs.cells import Cell

Held = Literal["yes", "partly", "no", "untested"]
SCALES = ("small", "paper", "debug")
"""`debug` runs everything in seconds and learns nothing; it is not listed."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of an experiment. `minutes`: on two CPU cores. `size`: in words, for the list.

    `settings`: plain JSON that `run` reads as `context.settings`; part of the protocol.
    """

    minutes: float
    size: str
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure: what it is of, its value as printed, and where."""

    what: str
    value: str
    where: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table for readers: cells are text, `note` is a sentence under it."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for line in self.lines:
            assert len(line) == len(self.columns), (self.columns, line)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run found; everything is plain JSON but the tables.

    `rows`: one mapping a measured number, with its interval, for machines. `verdict`: one plain
    sentence on whether the claim held, with the numbers that say so; `held` is its short form
    (`untested`: this scale cannot say). `picture`: what `draw` needs besides `rows`.
    """

    held: Held
    verdict: str
    tables: tuple[Table, ...]
    rows: Sequence[Mapping[str, Any]]
    picture: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment. `name` is its file's, with `-` for `_`.

    `question` and `claim`: a sentence each; `source`: paper and section. `version` rises when the
    same settings would give other numbers. `algorithms`: the default recipes, ALGORITHM/RECIPE.
    `refuses(recipe)`: why an algorithm cannot take part, None where it can; what can only be known
    with the data in hand (its spaces) is the library's to check. `run` measures; `draw(results,
    figure)` fills an empty figure of `figure_size` inches from the mapping of results.json;
    `further`, by file name, are `write(results, path)` of other pictures, films and tables beside it,
    which return None where this machine cannot draw them.
    `cells(context)`, where it is given, lists all trainings: they can then be run a few at a time,
    and `run` makes its findings of the rows that are there. `takes_data`: it can be run on data of
    the user's, `context.data`, in place of its own.
    """

    name: str
    title: str
    question: str
    claim: str
    source: str
    published: tuple[Published, ...]
    scales: Mapping[str, Scale]
    algorithms: tuple[str, ...]
    run: Callable[[Context], Findings]
    draw: Callable[[Mapping[str, Any], Figure], None]
    alt: str
    refuses: Callable[[str], str | None] = lambda recipe: None
    further: Mapping[str, Callable[[Mapping[str, Any], Path], Path | None]] = field(
        default_factory=dict
    )
    cells: Callable[[Context], Sequence[Cell]] | None = None
    takes_data: bool = False
    figure_size: tuple[float, float] = (10.0, 6.0)
    version: int = 1

    def __post_init__(self) -> None:
        if set(self.scales) != set(SCALES):
            raise UsageError(f"{self.name}: scales {sorted(self.scales)} are not {sorted(SCALES)}")
