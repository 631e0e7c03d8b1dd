"""Algorithms x datasets x seeds: rows of normalised scores, statistics over datasets, tables.

A row is of a recipe on a dataset: `seeds` (a score each), their `mean` and `interval` (None for one
seed), `asked` (how many seeds there will be), `protocol` and, by seed, `commands`. Statistics are
those of Agarwal et al. 2021, over the datasets on which every recipe has all of its seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajlm.core.errors import DataError
from trajlm.evaluation import scores
from trajlm.evaluation.protocol import TRAINED, refuse_mixed
from trajlm.reproduce import picture, published_scores
from trajlm.reproduce.base import Table
from trajlm.reproduce.taking_part import titles
from trajlm.runs.cells import Row

Rows = Sequence[Mapping[str, Any]]
MEASURES = {
    "dataset_score": "Percent of the way from the random to the expert behaviour's mean return",
    "d4rl_score": "D4RL score",
}
STATISTICS = {"IQM": scores.interquartile_mean, "mean": scores.mean}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A dataset: its name, what `--data` names it by, its environment's body where it has one, and
    the scale its scores are on."""

    name: str
    data: str
    body: str
    measure: str


def row_of(task: Task, recipe: str, found: Sequence[Row], *, asked: int) -> dict[str, Any]:
    """A row of the trainings that are there, one a seed.

    Raises `DataError` where they were measured differently, or one has no score on the task's scale.
    """
    protocols = [each["protocol"] for each in found]
    refuse_mixed(protocols, names=["-".join(each["keys"]) for each in found], fields=TRAINED)
    own = [each["rows"][0][task.measure] for each in found]
    if None in own:
        raise DataError(f"{'-'.join(found[own.index(None)]['keys'])}: every episode failed")
    return {
        "dataset": task.name,
        "measure": task.measure,
        "recipe": recipe,
        "seeds": own,
        "asked": asked,
        "mean": float(np.mean(own)),
        "interval": scores.bootstrap_interval(own),
        "returns": [each["rows"][0]["return_mean"] for each in found],
        "target": found[0]["rows"][0]["target_return"],
        "protocol": {k: v for k, v in protocols[0].items() if k != "training_seed"},
        "commands": {str(each["protocol"]["training_seed"]): each["command"] for each in found},
        "minutes": float(np.median([_minutes(each) for each in found])),
        "milliseconds": float(np.median([_milliseconds(each) for each in found])),
    }


def _minutes(row: Row) -> float:
    """Of training; by its speed, so that an interruption does not count."""
    return float(row["protocol"]["updates"] / max(row["updates_per_s"], 1e-9) / 60)


def _milliseconds(row: Row) -> float:
    """Of a step of one episode, its physics included, where all episodes run side by side."""
    return float(1000 * row["timing"]["total_seconds"] / max(row["timing"]["steps"], 1))


def aggregates(rows: Rows) -> list[dict[str, Any]]:
    """A mapping for each recipe and statistic: `recipe`, `statistic`, `value`, `interval` (None for
    one seed), `seeds` and the `datasets` it is over. None at all below two complete datasets, or where
    scores are on several scales."""
    recipes = _distinct(rows, "recipe")
    found = {(row["dataset"], row["recipe"]): row for row in rows}
    whole = [
        name
        for name in _distinct(rows, "dataset")
        if all(len(found.get((name, r), {}).get("seeds", ())) == _asked(rows, r) for r in recipes)
    ]
    if len(whole) < 2 or len({row["measure"] for row in rows}) > 1:
        return []
    return [
        {
            "recipe": recipe,
            "statistic": statistic,
            "value": measure(matrix),
            "interval": scores.stratified_bootstrap(measure, matrix),
            "seeds": len(matrix),
            "datasets": whole,
        }
        for recipe in recipes
        for matrix in [np.array([found[name, recipe]["seeds"] for name in whole]).T]
        for statistic, measure in STATISTICS.items()
    ]


def _asked(rows: Rows, recipe: str) -> int:
    return max(int(row["asked"]) for row in rows if row["recipe"] == recipe)


def score_table(rows: Rows, over: Rows, *, title: str, note: str) -> Table:
    """A line a dataset, a column a recipe, then published ones of D4RL's data; IQM and mean below."""
    recipes, names = _distinct(rows, "recipe"), _distinct(rows, "dataset")
    called = titles(recipes)
    published = _published_columns(recipes, names)
    cells = {(row["dataset"], row["recipe"]): told(row) for row in rows}
    lines = [
        (
            name,
            *(cells.get((name, recipe), "") for recipe in recipes),
            *(_published(column, name) for column in published),
        )
        for name in names
    ]
    for statistic in STATISTICS if over else ():
        own = {each["recipe"]: each for each in over if each["statistic"] == statistic}
        datasets = over[0]["datasets"]
        beside = [
            _published_mean(column, datasets) if statistic == "mean" else "" for column in published
        ]
        label = f"{statistic} of {len(datasets)}"
        lines.append((label, *(told(_as_row(own[recipe])) for recipe in recipes), *beside))
    columns = [published_scores.COLUMNS[column] for column in published]
    if published:
        sources = dict.fromkeys(source for _, source in published)
        note += " Published: " + "; ".join(published_scores.SOURCES[each] for each in sources) + "."
    return Table(
        title=title,
        columns=("dataset", *(called[recipe] for recipe in recipes), *columns),
        lines=tuple(lines),
        note=note,
    )


def told(row: Mapping[str, Any]) -> str:
    """A mean with its interval and number of seeds: `97.0 [93, 99] (n=3)`."""
    text = picture.mean_and_interval(row)
    return text if row["interval"] is None else f"{text} (n={len(row['seeds'])})"


def _as_row(each: Mapping[str, Any]) -> dict[str, Any]:
    return {"mean": each["value"], "interval": each["interval"], "seeds": [None] * each["seeds"]}


def cost_table(rows: Rows) -> Table:
    """What training and acting took, by recipe: the range over datasets of the median over seeds."""
    called = titles(_distinct(rows, "recipe"))
    lines = []
    for recipe, name in called.items():
        own = [row for row in rows if row["recipe"] == recipe]
        lines.append(
            (
                name,
                _range([row["protocol"]["updates"] for row in own], ",.0f"),
                _range([row["minutes"] for row in own], ".1f"),
                _range([row["protocol"]["episodes"] for row in own], ".0f"),
                _range([row["milliseconds"] for row in own], ".2f"),
            )
        )
    return Table(
        title="What it took",
        columns=("algorithm", "updates", "minutes of training", "episodes at once", "ms a step"),
        lines=tuple(lines),
        note=(
            "One thread, while another training ran beside it; from the least to the most over "
            "datasets. A step is one of one episode, its physics included."
        ),
    )


def _range(values: Sequence[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def _published_columns(recipes: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """Those of the algorithms in the table, where a dataset is one of D4RL's."""
    if not any(published_scores.dataset_of(name) for name in names):
        return []
    own = {recipe.split("/")[0] for recipe in recipes}
    return [column for column in published_scores.COLUMNS if column[0] in own]


def _published(column: tuple[str, str], name: str) -> str:
    dataset = published_scores.dataset_of(name)
    return "" if dataset is None else f"{published_scores.score(*column, dataset):.1f}"


def _published_mean(column: tuple[str, str], names: Sequence[str]) -> str:
    datasets = [published_scores.dataset_of(name) for name in names]
    own = [published_scores.score(*column, each) for each in datasets if each is not None]
    return f"{np.mean(own):.1f}" if len(own) == len(names) else ""


def _distinct(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))
