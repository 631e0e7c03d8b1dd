"""Which experiments exist: every file in `experiments/`. Nothing is registered by hand."""

from __future__ import annotations

import importlib
from pathlib import Path

from trajlm.core.errors import UsageError, suggestion
from trajlm.reproduce.base import Experiment, Scale

PACKAGE = "trajlm.reproduce.experiments"


def names() -> list[str]:
    """The names of all experiments; nothing is imported."""
    files = (Path(__file__).parent / "experiments").glob("*.py")
    return sorted(file.stem.replace("_", "-") for file in files if file.stem != "__init__")


def experiments() -> dict[str, Experiment]:
    """Every experiment by name."""
    return {name: experiment(name) for name in names()}


def experiment(name: str) -> Experiment:
    """The experiment called `name`. Raises `UsageError` with the nearest name."""
    known = names()
    if name not in known:
        near = suggestion(name, known) or f"; known: {', '.join(known)}"
        raise UsageError(f"unknown experiment {name!r}{near}")
    found: Experiment = importlib.import_module(f"{PACKAGE}.{name.replace('-', '_')}").EXPERIMENT
    assert found.name == name, f"the experiment in {name}'s file calls itself {found.name}"
    return found


def scale_of(found: Experiment, name: str) -> Scale:
    """A scale by name. Raises `UsageError` with the nearest name."""
    if name not in found.scales:
        near = suggestion(name, found.scales) or "; known: small, paper"
        raise UsageError(f"unknown scale {name!r}{near}")
    return found.scales[name]
