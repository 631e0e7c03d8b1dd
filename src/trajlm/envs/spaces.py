"""Gymnasium's spaces as the specification's, and whether a model fits an environment."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np

from trajlm.core.errors import EnvironmentFault
from trajlm.core.spec import Box, DataSpec, DictSpace, Discrete, MultiDiscrete, Space, leaves

logger = logging.getLogger(__name__)


def from_gymnasium(space: gymnasium.Space[Any]) -> Space:
    """The space as plain data. Raises `EnvironmentFault` for a kind that no model reads."""
    if isinstance(space, gymnasium.spaces.Box):
        unbounded = bool(np.all(np.isneginf(space.low)) and np.all(np.isposinf(space.high)))
        return Box(
            shape=tuple(int(size) for size in space.shape),
            dtype=str(space.dtype),
            low=None if unbounded else tuple(float(bound) for bound in space.low.ravel()),
            high=None if unbounded else tuple(float(bound) for bound in space.high.ravel()),
        )
    if isinstance(space, gymnasium.spaces.Discrete):
        return Discrete(n=int(space.n), start=int(space.start), dtype=str(space.dtype))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        if space.nvec.ndim == 1 and not np.any(space.start):
            return MultiDiscrete(nvec=tuple(int(n) for n in space.nvec), dtype=str(space.dtype))
    elif isinstance(space, gymnasium.spaces.MultiBinary):
        if len(space.shape) == 1:
            return MultiDiscrete(nvec=(2,) * space.shape[0], dtype=str(space.dtype))
    elif isinstance(space, gymnasium.spaces.Dict):
        return DictSpace(subspaces={name: from_gymnasium(sub) for name, sub in space.items()})
    raise EnvironmentFault(
        f"space {space} is not a Box, Discrete, MultiDiscrete (from 0) or Dict; "
        "wrap the environment so that it is"
    )


def describe(space: Space) -> str:
    """One phrase for error messages: `Box(17,)`, `Discrete(4)`, `{a: Box(3,), b: Discrete(2)}`."""
    if isinstance(space, DictSpace):
        inner = ", ".join(f"{name}: {describe(sub)}" for name, sub in space.subspaces.items())
        return "{" + inner + "}"
    if isinstance(space, Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, MultiDiscrete):
        return f"MultiDiscrete{space.nvec}"
    return f"Box{space.shape}"


def check_fit(spec: DataSpec, *, observation: Space, action: Space, env_id: str) -> None:
    """Raise `EnvironmentFault`, naming both shapes, where the model's spaces are not these."""
    pairs = (
        ("observations", spec.observation, observation),
        ("actions", spec.action, action),
    )
    for name, expected, found in pairs:
        if not same_kind(expected, found):
            raise EnvironmentFault(
                f"{env_id} has {name} {describe(found)}, the model was built for "
                f"{describe(expected)}; give the environment its dataset came from"
            )
    if (
        isinstance(spec.action, Box)
        and isinstance(action, Box)
        and _bounds_differ(spec.action, action)
    ):
        logger.warning(
            "%s: action bounds %s to %s differ from those of the model's dataset, %s to %s",
            env_id,
            *(action.low, action.high, spec.action.low, spec.action.high),
        )


def same_kind(one: Space, other: Space) -> bool:
    """Whether two spaces have the same leaves: names, kinds, shapes and sizes; bounds may differ."""
    return _signature(one) == _signature(other)


def _signature(space: Space) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Kind and shape (or sizes) of every leaf; bounds and precision may differ."""
    signature = {}
    for name, leaf in leaves(space, "").items():
        if isinstance(leaf, Box):
            signature[name] = ("Box", leaf.shape)
        else:
            signature[name] = ("integers", (leaf.n,) if isinstance(leaf, Discrete) else leaf.nvec)
    return signature


def _bounds_differ(one: Box, other: Box) -> bool:
    if not (one.bounded and other.bounded):
        return False
    return not (np.allclose(one.low, other.low) and np.allclose(one.high, other.high))  # type: ignore[arg-type]
