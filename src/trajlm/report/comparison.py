"""Methods over tasks: which runs are one method, and the statistics of Agarwal et al. 2021.

A method is an algorithm, or one of its recipes where several are compared; a task is a dataset with
its environment. The training seed is the unit: a run's score is the mean over its episodes, at the
highest return asked for that the data contains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajlm.core.errors import DataError
from trajlm.evaluation.protocol import AVERAGED, refuse_mixed
from trajlm.evaluation.scores import (
    Interval,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from trajlm.report.facts import algorithm
from trajlm.report.formatting import finite
from trajlm.report.readings import best_return, headline_row
from trajlm.report.records import Entry, Row, Run

SCALES = ("dataset_score", "d4rl_score", "return_mean")
# A method may be asked for a return that another cannot be asked for, and be guided.
SHARED = {key: label for key, label in AVERAGED.items() if key not in ("targets", "guide")}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A statistic and its 95% interval; None where one seed leaves nothing to vary."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Method:
    """`scores`: (R, T), a row for each training seed and a column for each task."""

    name: str
    scores: np.ndarray
    statistics: Mapping[str, Estimate]

    @property
    def num_seeds(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods with a score on every one of `tasks`; `scale` names the column they are scores in."""

    scale: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]

    def improvement(self, first: Method, second: Method) -> Estimate:
        """How probable it is that a run of `first` beats one of `second`."""
        return _estimate(probability_of_improvement, first.scores, second.scores)

    def profiles(self, *, points: int = 121) -> tuple[np.ndarray, list[np.ndarray]]:
        """Thresholds, and the share of each method's runs above them."""
        every = np.concatenate([method.scores.ravel() for method in self.methods])
        pad = 0.05 * (float(np.ptp(every)) or 1.0)
        thresholds = np.linspace(every.min() - pad, every.max() + pad, points)
        return thresholds, [performance_profile(m.scores, thresholds) for m in self.methods]


def compare(entries: Sequence[Entry]) -> Comparison | None:
    """The entries as methods over the tasks that all of them have; None where that is one number each.

    Raises `DataError` where runs of a task were measured differently, or no task is common.
    """
    scored = [(entry, row) for entry in entries if (row := _headline(entry)) is not None]
    table = _by_method(scored)
    if len(table) < 2:
        return None
    tasks = [
        task
        for task in dict.fromkeys(task for cells in table.values() for task in cells)
        if all(task in cells for cells in table.values())
    ]
    if not tasks:
        raise DataError("no dataset has a score of every method")
    for task in tasks:
        cells = [cells[task][0] for cells in table.values()]
        refuse_mixed([e.protocol for e in cells], names=[e.name for e in cells], fields=SHARED)
    scale = _scale([cells[task][1] for cells in table.values() for task in tasks], len(tasks))
    methods = [
        _method(name, [_seed_scores(*cells[task], scale=scale) for task in tasks], scale=scale)
        for name, cells in table.items()
    ]
    if len(tasks) == 1 and all(method.num_seeds == 1 for method in methods):
        return None  # two runs beside each other: the score table says it all
    names = tuple(_task_name(task) for task in tasks)
    return Comparison(scale=scale, tasks=names, methods=tuple(methods))


Task = tuple[str, str]
Cells = dict[Task, tuple[Entry, Row]]


def _headline(entry: Entry) -> Row | None:
    return headline_row(entry.rows, best=best_return(entry.dataset))


def _by_method(scored: Sequence[tuple[Entry, Row]]) -> dict[str, Cells]:
    """Scores by method and task. Algorithms stand for methods where that tells runs apart."""
    for naming in (algorithm, _recipe, lambda entry: entry.name):
        table = _named(scored, naming)
        if table is not None:
            return table
    raise AssertionError("entries have names of their own")


def _named(
    scored: Sequence[tuple[Entry, Row]], naming: Callable[[Entry], str]
) -> dict[str, Cells] | None:
    """Scores under `naming`; None where two of one task would share a name."""
    table: dict[str, Cells] = {}
    for entry, row in scored:
        cells = table.setdefault(naming(entry), {})
        if _task(entry) in cells:
            return None
        cells[_task(entry)] = (entry, row)
    return table


def _recipe(entry: Entry) -> str:
    return str(entry.protocol.get("recipe") or entry.name)


def _task(entry: Entry) -> Task:
    return str(entry.protocol.get("env_id")), str(entry.protocol.get("dataset"))


def _task_name(task: Task) -> str:
    return " in ".join(reversed(task))


def _scale(rows: Sequence[Row], num_tasks: int) -> str:
    """The first scale that every row has; returns of different tasks have no common average."""
    for name in SCALES if num_tasks == 1 else SCALES[:2]:
        if all(finite(row.get(name)) is not None for row in rows):
            return name
    raise DataError("the tasks have no normalised score in common, and their returns no one scale")


def _seed_scores(entry: Entry, row: Row, *, scale: str) -> list[float]:
    """The scores behind the entry's row: those of its runs, which must have been measured like it."""
    measured = [run for run in entry.runs if run.evaluation is not None]
    protocols = [run.evaluation.protocol for run in measured if run.evaluation is not None]
    names = [run.name for run in measured]
    refuse_mixed([entry.protocol, *protocols], names=[entry.name, *names])
    return [_seed_score(run, row.get("target_return"), scale=scale) for run in entry.runs]


def _seed_score(run: Run, target: Any, *, scale: str) -> float:
    rows = run.evaluation.rows if run.evaluation else ()
    row = next((row for row in rows if row.get("target_return") == target), {})
    value = finite(row.get(scale))
    if value is None:
        raise DataError(f"{run.name} has no {scale} at the target {target}")
    return value


def _method(name: str, columns: Sequence[Sequence[float]], *, scale: str) -> Method:
    counts = {len(column) for column in columns}
    if len(counts) > 1 or not min(counts):
        raise DataError(f"{name} has {sorted(counts)} scored training seeds on its tasks")
    scores = np.array(columns, np.float64).T
    statistics: dict[str, Callable[[np.ndarray], float]] = {
        "mean": mean,
        "median": median,
        "iqm": interquartile_mean,
    }
    if scale != "return_mean":
        statistics["optimality gap"] = optimality_gap
    estimates = {key: _estimate(statistic, scores) for key, statistic in statistics.items()}
    return Method(name=name, scores=scores, statistics=estimates)


def _estimate(statistic: Callable[..., float], *scores: np.ndarray) -> Estimate:
    return Estimate(value=statistic(*scores), interval=stratified_bootstrap(statistic, *scores))
