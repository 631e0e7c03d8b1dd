"""Which scores may stand beside each other, and which may be averaged.

A protocol is the mapping that `results.json` carries beside its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trajlm.core.errors import DataError

# Rows that differ in one of these measure different things. Episode counts are shown beside every
# row instead: they change an interval's width, not what a mean estimates.
COMPARED: Mapping[str, str] = {
    "env_id": "environment",
    "mujoco": "MuJoCo",
    "dataset": "dataset",
    "data_hash": "dataset version",
    "checkpoint": "checkpoint",
    "precision": "precision",
}
AVERAGED: Mapping[str, str] = {
    **COMPARED,
    "guide": "guide",
    "targets": "targets",
    "episodes": "episodes",
    "evaluation_seed": "evaluation seed",
}
"""What runs must share for one average over them."""
TRAINED: Mapping[str, str] = {**AVERAGED, "updates": "updates"}
"""The same, where each run's last checkpoint is scored; the best one may be of any update."""


def refuse_mixed(
    protocols: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    fields: Mapping[str, str] = AVERAGED,
) -> None:
    """Raise `DataError` where two protocols differ in one of `fields`, naming the runs and both values."""
    for name, protocol in zip(names, protocols, strict=True):
        for key, label in fields.items():
            before, here = protocols[0].get(key), protocol.get(key)
            if before != here:
                raise DataError(
                    f"{names[0]} and {name} were measured differently, so they have no common "
                    f"average: {label} {before} and {here}; evaluate both alike"
                )
