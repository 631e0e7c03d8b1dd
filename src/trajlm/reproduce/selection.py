"""Trainings of an experiment by name, so that it can be made in parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from trajlm.core.errors import UsageError, suggestion
from trajlm.reproduce.base import Experiment
from trajlm.reproduce.context import Context
from trajlm.runs.cells import Cell


def cells_of(experiment: Experiment, context: Context) -> dict[str, Cell]:
    """All trainings by name. Raises `UsageError` for an experiment that is run as a whole."""
    if experiment.cells is None:
        raise UsageError(
            f"{experiment.name} is run as a whole; stopped at any moment, the same command goes on"
        )
    cells = experiment.cells(context)
    found = {cell.name: cell for cell in cells}
    assert len(found) == len(cells), "two trainings share a name"
    return found


def in_turn(groups: Iterable[Sequence[Cell]]) -> list[Cell]:
    """Trainings, a group a thing that is trained, in the order of their seeds: the first of every
    group before the second, so that a part shows all."""
    return sorted((cell for each in groups for cell in each), key=lambda cell: int(cell.keys[-1]))


def listed(experiment: Experiment, context: Context) -> list[Mapping[str, Any]]:
    """A mapping each: `name`, `there` (its row is kept) and its `command`."""
    kept = context.kept_keys()
    return [
        {"name": name, "there": cell.keys in kept, "command": cell.command}
        for name, cell in cells_of(experiment, context).items()
    ]


def chosen(experiment: Experiment, context: Context, patterns: Sequence[str]) -> frozenset[str]:
    """The names that `patterns`, names or shell patterns, mean.

    Raises `UsageError` with the nearest name where one means nothing.
    """
    known = cells_of(experiment, context)
    found: set[str] = set()
    for pattern in patterns:
        meant = [name for name in known if fnmatchcase(name, pattern)]
        if not meant:
            near = suggestion(pattern, known) or f"; trajlm reproduce {experiment.name} --cells"
            raise UsageError(f"unknown training {pattern!r}{near}")
        found.update(meant)
    return frozenset(found)
