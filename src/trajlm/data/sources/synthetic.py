"""Datasets made of arithmetic, one for every kind of space: for tests, examples and benchmarks.

Each episode has a skill drawn from its seed; rewards rise with it, and actions depend on the
observation and the skill, so a return-conditioned model has something to learn. The same name,
number of episodes and seed give the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from trajlm.core.errors import UsageError, suggestion
from trajlm.core.seeding import counter_bits, derive, uniform
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A made-up task: its spaces and the range of its episodes' lengths."""

    summary: str
    observation: Space
    action: Space
    shortest: int = 20
    longest: int = 60
    episodes: int = 40


def _box(size: int, bound: float = math.inf) -> Box:
    return Box(shape=(size,), low=(-bound,) * size, high=(bound,) * size)


_IMAGE = Box(shape=(32, 32, 3), dtype="uint8", low=(0.0,) * 3072, high=(255.0,) * 3072)
_DICT = DictSpace(subspaces={"position": _box(3), "goal": _box(2), "room": Discrete(n=4)})

KINDS: Mapping[str, _Kind] = {
    "box": _Kind(summary="real vectors", observation=_box(4), action=_box(2, 1.0)),
    "bounds": _Kind(
        summary="actions from -2 to 3",
        observation=_box(3),
        action=Box(shape=(2,), low=(-2.0, -2.0), high=(3.0, 3.0)),
    ),
    "image": _Kind(summary="uint8 images", observation=_IMAGE, action=Discrete(n=3), episodes=8),
    "discrete": _Kind(
        summary="counts in, counts out", observation=Discrete(n=12), action=Discrete(n=5)
    ),
    "multidiscrete": _Kind(
        summary="vectors of counts",
        observation=MultiDiscrete(nvec=(4, 6, 8)),
        action=MultiDiscrete(nvec=(3, 5)),
    ),
    "dict": _Kind(summary="named observations", observation=_DICT, action=_box(2, 1.0)),
    "short": _Kind(
        summary="episodes of 1 to 4 steps",
        observation=_box(4),
        action=_box(2, 1.0),
        shortest=1,
        longest=4,
    ),
    "long": _Kind(
        summary="one episode of 40,000 steps",
        observation=_box(4),
        action=_box(2, 1.0),
        shortest=40_000,
        longest=40_000,
        episodes=1,
    ),
    "halfcheetah": _Kind(
        summary="HalfCheetah's dims and lengths, without its physics",
        observation=_box(17),
        action=_box(6, 1.0),
        shortest=1000,
        longest=1000,
        episodes=20,
    ),
}


def synthetic(name: str, *, episodes: int | None = None, seed: int = 0) -> TrajectoryStore:
    """The dataset `name` of `KINDS`. Raises `UsageError` for a name that does not exist."""
    if name not in KINDS:
        near = suggestion(name, KINDS) or f"; known: {', '.join(KINDS)}"
        raise UsageError(f"no synthetic dataset {name!r}{near}")
    kind = KINDS[name]
    count = kind.episodes if episodes is None else episodes
    return TrajectoryStore.from_trajectories(
        (_episode(kind, seed=derive(seed, number)) for number in range(count)),
        observation_space=kind.observation,
        action_space=kind.action,
        name=f"synthetic:{name}",
        metadata={"format": "synthetic"},
    )


def _episode(kind: _Kind, *, seed: int) -> Trajectory:
    """Odd seeds end by termination, even ones by truncation."""
    span = kind.longest - kind.shortest + 1
    steps = kind.shortest + int(counter_bits(seed, 0)) % span
    skill = float(uniform(np.array([seed]), np.array([0]), lanes=1, stream=9)[0, 0])
    draw = _drawer(seed)
    columns = _columns(kind.observation, "observations", draw, rows=steps + 1)
    columns |= _columns(kind.action, "actions", draw, rows=steps)
    first = columns[min(n for n in columns if n.startswith("observations"))]
    signal = first.reshape(steps + 1, -1)[:-1, 0].astype(np.float64)
    actions = columns["actions"]
    if isinstance(kind.action, Box):
        middle = 0.5 * (np.asarray(kind.action.low) + np.asarray(kind.action.high))
        half = 0.5 * (np.asarray(kind.action.high) - np.asarray(kind.action.low))
        wave = np.tanh(signal[:, None] * (1.0 + np.arange(len(half))) + 2.0 * skill - 1.0)
        columns["actions"] = (middle + half * wave).astype(np.float32)
    elif isinstance(kind.action, Discrete):
        columns["actions"] = (
            np.abs(signal + 3.0 * skill).astype(np.int64) % kind.action.n + kind.action.start
        )
    else:
        columns["actions"] = actions
    columns["rewards"] = (skill + 0.1 * np.sin(signal)).astype(np.float32)
    return Trajectory(columns=columns, terminated=bool(seed % 2), truncated=not seed % 2, seed=seed)


def _drawer(seed: int) -> Callable[[int, int], np.ndarray]:
    """(rows, lanes) -> uniform numbers (rows, lanes); each call draws from the next stream."""
    stream = 0

    def draw(rows: int, lanes: int) -> np.ndarray:
        nonlocal stream
        stream += 1
        return uniform(np.full(rows, seed), np.arange(rows), lanes=lanes, stream=stream)

    return draw


def _columns(
    space: Space, name: str, draw: Callable[[int, int], np.ndarray], *, rows: int
) -> dict[str, np.ndarray]:
    """Columns of a space. Real vectors are smooth: each row keeps nine tenths of the last."""
    if isinstance(space, DictSpace):
        found: dict[str, np.ndarray] = {}
        for leaf, subspace in space.subspaces.items():
            found |= _columns(subspace, f"{name}/{leaf}", draw, rows=rows)
        return found
    if isinstance(space, Discrete):
        return {name: (draw(rows, 1)[:, 0] * space.n).astype(np.int64) + space.start}
    if isinstance(space, MultiDiscrete):
        nvec = np.asarray(space.nvec)
        return {name: (draw(rows, len(nvec)) * nvec).astype(np.int64)}
    noise = draw(rows, space.size)
    if space.dtype == "uint8":
        return {name: (noise * 256).astype(np.uint8).reshape(rows, *space.shape)}
    values = 2.0 * noise - 1.0
    smooth = np.empty_like(values)
    state = values[0]
    for row in range(rows):
        state = 0.9 * state + 0.44 * values[row]
        smooth[row] = state
    return {name: smooth.astype(np.float32).reshape(rows, *space.shape)}
