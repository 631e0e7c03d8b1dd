"""Reinforcement learning as language modelling of trajectories.

The public door: everything behind it is free to move. Names are imported on first use, so that
`import trajlm` loads neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trajlm.collect.collector import collect as collect_dataset
    from trajlm.convert.huggingface import load
    from trajlm.core.protocols import Condition, Step
    from trajlm.data.load import load_dataset
    from trajlm.runs.offline import evaluate, train
    from trajlm.training.checkpoint import save_artefact as save

__version__ = "0.1.0"

__all__ = [
    "Condition",
    "Step",
    "__version__",
    "collect_dataset",
    "evaluate",
    "load",
    "load_dataset",
    "save",
    "train",
]

# `collect` itself is the package of behaviours and collector; the function has a name of its own.
_DOOR = {
    "Condition": ("trajlm.core.protocols", "Condition"),
    "Step": ("trajlm.core.protocols", "Step"),
    "collect_dataset": ("trajlm.collect.collector", "collect"),
    "evaluate": ("trajlm.runs.offline", "evaluate"),
    "load": ("trajlm.convert.huggingface", "load"),
    "load_dataset": ("trajlm.data.load", "load_dataset"),
    "save": ("trajlm.training.checkpoint", "save_artefact"),
    "train": ("trajlm.runs.offline", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'trajlm' has no attribute {name!r}")
    module, attribute = _DOOR[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
