"""Facts of the data: spaces, and what a model must know of the dataset it is built for.

A `DataSpec` is derived from a store, never typed by hand, and travels inside the checkpoint.
Everything here is plain Python and NumPy, frozen, and turns into JSON and back without loss.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajlm.core.errors import DataError, UsageError

QUANTILE_STEP = 5
"""Percent between the return quantiles that a `DataSpec` keeps."""
_QUANTILE = re.compile(r"q(\d{1,3})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Box:
    """Real or integer arrays. `low` and `high` are flat (row-major) bounds, one an entry."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bounded(self) -> bool:
        """True where every entry has two finite bounds."""
        return (
            self.low is not None
            and self.high is not None
            and bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))
        )


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """Integers `start, ..., start + n - 1`."""

    n: int
    start: int = 0
    dtype: str = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class MultiDiscrete:
    """A vector of integers; entry `i` lies in `0, ..., nvec[i] - 1`."""

    nvec: tuple[int, ...]
    dtype: str = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)


@dataclass(frozen=True, kw_only=True)
class DictSpace:
    """Named subspaces; a column of one is called `observations/NAME`."""

    subspaces: Mapping[str, Space]


Space = Box | Discrete | MultiDiscrete | DictSpace


def leaves(space: Space, prefix: str) -> dict[str, Box | Discrete | MultiDiscrete]:
    """The space's leaves by column name: `{"observations": Box}` or `{"observations/a": ...}`."""
    if isinstance(space, DictSpace):
        found: dict[str, Box | Discrete | MultiDiscrete] = {}
        for name, subspace in space.subspaces.items():
            found |= leaves(subspace, f"{prefix}/{name}")
        return found
    return {prefix: space}


def space_to_json(space: Space) -> dict[str, Any]:
    if isinstance(space, DictSpace):
        inner = {name: space_to_json(sub) for name, sub in space.subspaces.items()}
        return {"type": "Dict", "subspaces": inner}
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": space.n, "start": space.start, "dtype": space.dtype}
    if isinstance(space, MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": list(space.nvec), "dtype": space.dtype}
    return {
        "type": "Box",
        "shape": list(space.shape),
        "dtype": space.dtype,
        # JSON has no infinity: an absent bound of one entry is null.
        "low": _bounds_to_json(space.low),
        "high": _bounds_to_json(space.high),
    }


def space_from_json(value: Mapping[str, Any]) -> Space:
    """Inverse of `space_to_json`. Raises `DataError` for a kind it does not know."""
    kind = value.get("type")
    if kind == "Dict":
        return DictSpace(subspaces={k: space_from_json(v) for k, v in value["subspaces"].items()})
    if kind == "Discrete":
        return Discrete(n=int(value["n"]), start=int(value["start"]), dtype=str(value["dtype"]))
    if kind == "MultiDiscrete":
        return MultiDiscrete(nvec=tuple(int(n) for n in value["nvec"]), dtype=str(value["dtype"]))
    if kind == "Box":
        return Box(
            shape=tuple(int(n) for n in value["shape"]),
            dtype=str(value["dtype"]),
            low=_bounds_from_json(value["low"], -math.inf),
            high=_bounds_from_json(value["high"], math.inf),
        )
    raise DataError(f"space type {kind!r} is not one of Box, Discrete, MultiDiscrete, Dict")


def _bounds_to_json(bounds: tuple[float, ...] | None) -> list[float | None] | None:
    return None if bounds is None else [b if math.isfinite(b) else None for b in bounds]


def _bounds_from_json(value: Any, missing: float) -> tuple[float, ...] | None:
    return None if value is None else tuple(missing if b is None else float(b) for b in value)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What a model is built for, and what evaluation must know of the data.

    `horizon`: the longest finished episode in steps, or the environment's limit where known.
    `return_min`, `return_max`, `return_mean`: over finished episodes, undiscounted;
    `return_quantiles`: at 0, 5, ..., 100 percent. `expert_return`: the mean return of the expert
    behaviour, where known. `delayed_reward`: the rewards were moved to each episode's end.
    `has_statistics`: what normalises the observations, or puts them in bins, was fitted on data, not
    left at its initial values.
    `has_last_observation`: observations have T+1 rows an episode.
    """

    observation: Space
    action: Space
    horizon: int
    env_id: str | None = None
    dataset: str = ""
    data_hash: str = ""
    return_min: float = 0.0
    return_max: float = 0.0
    return_mean: float = 0.0
    return_quantiles: tuple[float, ...] = ()
    expert_return: float | None = None
    delayed_reward: bool = False
    has_statistics: bool = True
    has_last_observation: bool = True

    def asked_return(self, target: float | str) -> float:
        """The return behind a target: a number itself, `max`, `qNN` or `expert`, of the data.

        Raises `UsageError` for another name, and where the data do not say.
        """
        if not isinstance(target, str):
            return float(target)
        check_target(target)
        if target == "max":
            return self.return_max
        if target == "expert":
            if self.expert_return is None:
                raise UsageError(
                    f"target_return: no expert's return is known for {self.dataset or 'the data'}; "
                    "ask for max, q95 or a number"
                )
            return self.expert_return
        if not self.return_quantiles:
            raise UsageError(
                f"target_return: {target!r}: this model's data facts hold no quantiles; "
                "ask for max or a number"
            )
        return self.return_quantiles[int(target[1:]) // QUANTILE_STEP]

    def to_json(self) -> dict[str, Any]:
        plain = dict(self.__dict__)
        plain["return_quantiles"] = list(self.return_quantiles)
        plain["observation"] = space_to_json(self.observation)
        plain["action"] = space_to_json(self.action)
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSpec:
        unknown = set(value) - set(cls.__dataclass_fields__)
        missing = {"observation", "action", "horizon"} - set(value)
        if unknown or missing:
            raise DataError(f"data spec: unknown keys {sorted(unknown)}, missing {sorted(missing)}")
        plain = dict(value)
        plain["observation"] = space_from_json(plain["observation"])
        plain["action"] = space_from_json(plain["action"])
        plain["return_quantiles"] = tuple(plain.get("return_quantiles", ()))
        return cls(**plain)


def check_target(target: float | str) -> None:
    """Raise `UsageError` where `target` is neither a finite number nor the name of a return."""
    if isinstance(target, str):
        match = _QUANTILE.fullmatch(target)
        percent = int(match.group(1)) if match else -1
        known = 0 <= percent <= 100 and percent % QUANTILE_STEP == 0
        if target not in ("max", "expert") and not known:
            raise UsageError(
                f"target_return: {target!r} is not a number, max, expert or q0, q5, ..., q100"
            )
    elif not math.isfinite(target):
        raise UsageError(f"target_return: {target} is not finite")


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Per-dimension facts of one column, float64, over all rows. Shapes: the entry's, flat."""

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: int
