"""One episode: what a rollout gives and what the store takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trajlm.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """An episode of T steps as named columns.

    `columns` holds `observations` (T+1, ...) or (T, ...), `actions` (T, ...), `rewards` (T,) and
    whatever else was recorded; a Dict space has one column a leaf, `observations/NAME`.
    `terminated`: the task ended. `truncated`: a time limit ended it. `unfinished`: the recording
    ends inside the episode. Raises `DataError` where lengths disagree.
    """

    columns: Mapping[str, np.ndarray]
    terminated: bool
    truncated: bool
    unfinished: bool = False
    seed: int | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "rewards" not in self.columns:
            raise DataError("an episode needs a column 'rewards'")
        steps = len(self.columns["rewards"])
        for name, column in self.columns.items():
            allowed = (steps, steps + 1) if name.split("/")[0] == "observations" else (steps,)
            if len(column) not in allowed:
                raise DataError(f"column {name!r} has {len(column)} rows, rewards have {steps}")

    def __len__(self) -> int:
        return len(self.columns["rewards"])

    @property
    def episode_return(self) -> float:
        """Undiscounted, summed in float64."""
        return float(np.sum(self.columns["rewards"], dtype=np.float64))

    @property
    def has_last_observation(self) -> bool:
        rows = [len(c) for n, c in self.columns.items() if n.split("/")[0] == "observations"]
        return bool(rows) and all(count == len(self) + 1 for count in rows)
