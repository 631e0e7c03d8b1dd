"""Which algorithms exist: every folder under `trajlm.algorithms` and every entry point.

Nothing is registered by hand and nothing here imports torch: an algorithm's `config` module is
torch-free, its `model` module is imported when a model is built. An installed package adds an
algorithm with an entry point in the group `trajlm.algorithms` whose value is its package.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trajlm.core.config import read_yaml
from trajlm.core.config import recipe as read_recipe
from trajlm.core.errors import UsageError, suggestion

ENTRY_POINT_GROUP = "trajlm.algorithms"
BUILT_IN = "trajlm.algorithms"


@dataclass(frozen=True, kw_only=True)
class AlgorithmEntry:
    """A discovered algorithm: its name, its package and the folder that holds its files."""

    name: str
    package: str
    folder: Path

    @property
    def config_module(self) -> Any:
        """The torch-free module with `Config` and `PolicyConfig`."""
        return importlib.import_module(f"{self.package}.config")

    @property
    def algorithm_class(self) -> Any:
        """The module `model`'s class named `Model`. Imports torch."""
        return importlib.import_module(f"{self.package}.model").Model

    @property
    def recipes_path(self) -> Path:
        return self.folder / "recipes.yaml"

    @property
    def recipes(self) -> list[str]:
        return [name for name in read_yaml(self.recipes_path) if name != "defaults"]

    @property
    def summary(self) -> str:
        """The first line of the config module's docstring."""
        return (self.config_module.__doc__ or "").strip().splitlines()[0]


def algorithms() -> dict[str, AlgorithmEntry]:
    """Every algorithm by name; built-in folders first, then entry points."""
    found: dict[str, AlgorithmEntry] = {}
    root = Path(__file__).parent.parent / "algorithms"
    for config in sorted(root.glob("*/config.py")):
        name = config.parent.name
        found[name] = AlgorithmEntry(name=name, package=f"{BUILT_IN}.{name}", folder=config.parent)
    for point in _entry_points(tuple(sys.path)):
        spec = importlib.util.find_spec(point.value)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            found[point.name] = AlgorithmEntry(name=point.name, package=point.value, folder=folder)
    return found


@functools.cache
def _entry_points(path: tuple[str, ...]) -> list[importlib.metadata.EntryPoint]:
    """The group's entry points; looked up once for each `path`, as it reads every distribution."""
    return list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))


def algorithm(name: str) -> AlgorithmEntry:
    """The algorithm called `name`. Raises `UsageError` with the nearest name."""
    found = algorithms()
    if name not in found:
        near = suggestion(name, found) or f"; known: {', '.join(found)}"
        raise UsageError(f"unknown algorithm {name!r}{near}")
    return found[name]


def planners() -> list[str]:
    """The algorithms that plan: their policy has a horizon."""
    return [
        name
        for name, entry in algorithms().items()
        if "horizon" in {field.name for field in fields(entry.config_module.PolicyConfig)}
    ]


def refuse_without_plans(name: str) -> None:
    """Raise `UsageError` for an algorithm that does not plan, naming those that do."""
    able = planners()
    if name not in able:
        raise UsageError(f"{name} does not plan; those that do: {', '.join(able)}")


def find_recipe(reference: str) -> tuple[AlgorithmEntry, dict[str, Any]]:
    """`ALGORITHM/RECIPE` as the algorithm and the recipe's merged mapping."""
    name, _, recipe_name = reference.partition("/")
    entry = algorithm(name)
    if not recipe_name:
        raise UsageError(f"{reference!r} names no recipe; write {name}/{entry.recipes[0]}")
    return entry, read_recipe(entry.recipes_path, recipe_name)
