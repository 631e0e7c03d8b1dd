"""Arrays in memory and `.npz` files: flat rows with end flags (D4RL's form), or episodes.

Flat rows are cut after each row whose `terminals` or `timeouts` is set. A terminal has priority
where both are set; rows after the last cut are an unfinished episode. Without `timeouts`, an
episode is also cut where it reaches the environment's step limit, when that is known.

Legend: N rows, E episodes.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space
from trajlm.core.trajectory import Trajectory
from trajlm.data.findings import Finding, as_metadata
from trajlm.data.store import (
    Segment,
    TrajectoryStore,
    as_column,
    hash_columns,
    is_observation,
    segment_of,
)

BUDGET_BYTES = 64 * 2**30
# A published policy's tanh may round to just above 1 in float32.
UNIT_TOLERANCE = 1e-5
FLAGS = ("terminals", "timeouts")
EPISODE_FLAGS = {
    "terminated": ("terminated", "terminations", "terminals", "dones"),
    "truncated": ("truncated", "truncations", "timeouts"),
}


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    name: str = "arrays",
    env_id: str | None = None,
    step_limit: int | None = None,
    observation_space: Space | None = None,
    action_space: Space | None = None,
    content_hash: str = "",
    metadata: Mapping[str, object] | None = None,
) -> TrajectoryStore:
    """A store of flat rows.

    `arrays`: `observations` (N, ...) or a mapping of leaves, `actions` (N, ...), `rewards` (N,),
    `terminals` (N,), and where there are any `timeouts` (N,) and `next_observations` (which give
    each episode's last observation); any other (N, ...) array becomes a column. Arrays of the right
    dtype are not copied: do not write to them afterwards. Spaces that are not given are guessed
    (`guess_space`). Raises `DataError`.
    """
    columns = _flatten(arrays)
    findings = _cut_to_common_length(columns, name=name)
    terminals = columns.pop("terminals").astype(bool)
    given_timeouts = columns.pop("timeouts", None)
    timeouts = None if given_timeouts is None else given_timeouts.astype(bool)
    split = "timeouts" if timeouts is not None else "terminals"
    if timeouts is None and step_limit:
        split = f"terminals and a limit of {step_limit} steps"
        # The same bytes cut otherwise are another dataset.
        content_hash = content_hash and hashlib.sha256((content_hash + split).encode()).hexdigest()
        timeouts = limit_timeouts(terminals, step_limit=step_limit)
    ends, terminated, truncated, unfinished = cut(terminals, timeouts)
    if timeouts is not None and (terminals & timeouts).any():
        both = np.searchsorted(ends, np.flatnonzero(terminals & timeouts))
        findings.append(
            Finding(
                rule="D004",
                severity="warning",
                message=f"{len(both)} episodes end with a terminal and a timeout at one step "
                f"(first: episode {both[0]}); read as terminated",
                episodes=tuple(int(e) for e in both[:20]),
            )
        )
    columns, keeps_last = _with_last_observations(columns, ends)
    segment = Segment(
        columns=columns,
        lengths=np.diff(ends, prepend=-1).astype(np.int64),
        terminated=terminated,
        truncated=truncated,
        unfinished=unfinished,
        seeds=np.full(len(ends), -1, np.int64),
        has_last_observation=keeps_last,
    )
    facts: dict[str, object] = {**(metadata or {}), "split": split}
    if action_space is None:
        action_space, facts["action_bounds"] = guess_action_space(columns["actions"])
    if observation_space is None:
        observation_space = guess_observation_space(columns)
    facts["findings"] = as_metadata(findings)
    return TrajectoryStore.from_segment(
        segment,
        observation_space=observation_space,
        action_space=action_space,
        name=name,
        env_id=env_id,
        content_hash=content_hash or hash_columns(segment),
        metadata=facts,
    )


def from_episodes(
    episodes: Iterable[Trajectory | Mapping[str, Any]],
    *,
    name: str = "episodes",
    env_id: str | None = None,
    observation_space: Space | None = None,
    action_space: Space | None = None,
    metadata: Mapping[str, object] | None = None,
) -> TrajectoryStore:
    """A store of episodes: `Trajectory` objects, or mappings with `observations` (T+1, ...) or
    (T, ...), `actions`, `rewards`, and the end flags as a bool or (T,) array under `terminated`
    or `terminations` or `terminals` or `dones`, and `truncated` or `truncations` or `timeouts`.
    """
    trajectories = [
        e if isinstance(e, Trajectory) else _trajectory(e, number=number)
        for number, e in enumerate(episodes)
    ]
    segment = segment_of(trajectories)
    facts: dict[str, object] = dict(metadata or {})
    if action_space is None:
        action_space, facts["action_bounds"] = guess_action_space(segment.columns["actions"])
    return TrajectoryStore.from_segment(
        segment,
        observation_space=observation_space or guess_observation_space(segment.columns),
        action_space=action_space,
        name=name,
        env_id=env_id,
        content_hash=hash_columns(segment),
        metadata=facts,
    )


def read(path: Path, *, step_limit: int | None = None, content_hash: str = "") -> TrajectoryStore:
    """A `.npz` file of flat rows (see `from_arrays`); Dict leaves are named `observations/KEY`."""
    return from_arrays(
        read_npz(path), name=path.stem, step_limit=step_limit, content_hash=content_hash
    )


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, whose declared sizes are checked before memory is taken."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_npz_headers(archive, path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, KeyError, MemoryError) as error:
        cause = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataError(f"{path}: damaged .npz file ({cause})") from None
    except Exception as error:  # zlib.error and what a hostile zip makes zipfile raise
        raise DataError(f"{path}: damaged .npz file ({type(error).__name__})") from None


def _check_npz_headers(archive: zipfile.ZipFile, path: Path) -> None:
    total = 0
    for member in archive.infolist():
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            shape, _, dtype = read_header(stream)
            header = stream.tell()
        if dtype.hasobject:
            raise DataError(f"{member.filename} holds Python objects; save plain numeric arrays")
        declared = dtype.itemsize
        for count in shape:
            declared *= int(count)
        if declared != member.file_size - header:
            raise DataError(
                f"{member.filename} declares shape {shape} but holds {member.file_size} bytes"
            )
        total += declared
    if total > BUDGET_BYTES:
        raise DataError(f"asks for {total / 2**30:.0f} GiB, budget {BUDGET_BYTES >> 30} GiB")


# ---- spaces ---------------------------------------------------------------------------------


def guess_action_space(actions: np.ndarray) -> tuple[Space, str]:
    """The space of actions that declare none, and how it was found.

    Integers: Discrete up to the largest seen. Floats: bounds -1 and 1 where every action lies
    within (what the locomotion suites use), else each dimension's least and greatest.
    """
    if actions.dtype.kind in "iub":
        return guess_space(actions), "counts are the largest action in the data plus one"
    flat = actions.reshape(len(actions), -1)
    low, high = np.min(flat, axis=0), np.max(flat, axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        finite = flat[np.isfinite(flat).all(axis=1)]
        low, high = (np.min(finite, axis=0), np.max(finite, axis=0)) if len(finite) else (-1.0, 1.0)
    shape = actions.shape[1:]
    if np.min(low) >= -1.0 - UNIT_TOLERANCE and np.max(high) <= 1.0 + UNIT_TOLERANCE:
        low, high, how = np.full(flat.shape[1], -1.0), np.full(flat.shape[1], 1.0), "-1 to 1"
        how = "-1 to 1, assumed: the file declares no bounds and every action lies within"
    else:
        how = "least and greatest action of the data: the file declares no bounds"
    bounds = {"low": tuple(map(float, low)), "high": tuple(map(float, high))}
    return Box(shape=shape, dtype="float32", **bounds), how


def guess_observation_space(columns: Mapping[str, np.ndarray]) -> Space:
    """The observation space of columns that declare none; leaves by their names."""
    if "observations" in columns:
        return guess_space(columns["observations"])
    tree: dict[str, Any] = {}
    for name, column in columns.items():
        if is_observation(name):
            *parents, leaf = name.split("/")[1:]
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = guess_space(column)
    return _dict_space(tree)


def guess_space(column: np.ndarray) -> Space:
    """Floats: an unbounded Box. uint8 of two or more dims: an image. Integers: counts."""
    shape = column.shape[1:]
    if column.dtype.kind == "f":
        return Box(shape=shape, dtype="float32")
    if column.dtype == np.uint8 and len(shape) >= 2:
        size = int(np.prod(shape))
        return Box(shape=shape, dtype="uint8", low=(0.0,) * size, high=(255.0,) * size)
    if shape == ():
        start = int(min(column.min(initial=0), 0))
        return Discrete(n=int(column.max(initial=0)) - start + 1, start=start)
    if len(shape) == 1:
        return MultiDiscrete(nvec=tuple(int(n) + 1 for n in column.max(axis=0, initial=0)))
    return Box(shape=shape, dtype=str(column.dtype))


def _dict_space(tree: Mapping[str, Any]) -> DictSpace:
    return DictSpace(
        subspaces={
            name: _dict_space(node) if isinstance(node, dict) else node
            for name, node in tree.items()
        }
    )


# ---- cutting flat rows ------------------------------------------------------------------------


def cut(
    terminals: np.ndarray, timeouts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Last rows (E,) and the flags terminated, truncated, unfinished (E,) of flat rows (N,)."""
    ending = terminals if timeouts is None else terminals | timeouts
    ends = np.flatnonzero(ending)
    rows = len(terminals)
    if not len(ends) or ends[-1] != rows - 1:
        ends = np.append(ends, rows - 1)
    terminated = terminals[ends]
    truncated = ~terminated & ending[ends]
    return ends, terminated, truncated, ~ending[ends]


def limit_timeouts(terminals: np.ndarray, *, step_limit: int) -> np.ndarray:
    """(N,) bool: rows at which an episode reaches `step_limit` steps without a terminal."""
    timeouts = np.zeros(len(terminals), bool)
    start = 0
    for stop in [*(np.flatnonzero(terminals) + 1).tolist(), len(terminals)]:
        timeouts[start + step_limit - 1 : stop : step_limit] = True
        start = stop
    return np.asarray(timeouts & ~terminals)


def _flatten(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Nested mappings become `/` names, (N, 1) rewards and flags become (N,)."""
    columns: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        if isinstance(value, Mapping):
            columns |= _flatten({f"{name}/{key}": inner for key, inner in value.items()})
        else:
            columns[name] = _numeric(name, value)
    for name in ("rewards", *FLAGS):
        if name in columns and columns[name].ndim == 2 and columns[name].shape[1] == 1:
            columns[name] = columns[name][:, 0]
    if "actions" in columns and columns["actions"].ndim == 2:
        actions = columns["actions"]
        if actions.dtype.kind in "iub" and actions.shape[1] == 1:
            columns["actions"] = actions[:, 0]
    return columns


def _numeric(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise DataError(f"{name!r} holds {array.dtype} of shape {array.shape}, not rows of numbers")
    return as_column(array)


def _cut_to_common_length(columns: dict[str, np.ndarray], *, name: str) -> list[Finding]:
    """Checks presence and shapes; rows past the shortest column are cut and reported."""
    missing = [n for n in ("actions", "rewards", "terminals") if n not in columns]
    if not any(is_observation(n) for n in columns):
        missing.insert(0, "observations")
    if missing:
        raise DataError(
            f"{name}: no column {missing[0]!r}; found {', '.join(sorted(columns)) or 'nothing'}"
        )
    for flat in ("rewards", *FLAGS):
        if flat in columns and columns[flat].ndim != 1:
            raise DataError(f"{name}: {flat!r} has shape {columns[flat].shape}, expected (N,)")
    rows = {n: len(c) for n, c in columns.items()}
    shortest = min(rows.values())
    if shortest == 0:
        raise DataError(f"{name}: the dataset is empty (0 rows)")
    if len(set(rows.values())) == 1:
        return []
    for column in columns:
        columns[column] = columns[column][:shortest]
    listed = ", ".join(f"{n} {count}" for n, count in sorted(rows.items()))
    message = f"columns disagree in length ({listed}); rows past {shortest} are left out"
    return [Finding(rule="D002", severity="error", message=message)]


def _with_last_observations(
    columns: dict[str, np.ndarray], ends: np.ndarray
) -> tuple[dict[str, np.ndarray], bool]:
    """Observations with T+1 rows an episode where `next_observations` gives the last one."""
    rest = {n: c for n, c in columns.items() if n.split("/")[0] != "next_observations"}
    observed = [n for n in columns if is_observation(n)]
    if not all(f"next_{n}" in columns for n in observed):
        return rest, False
    number = np.arange(len(ends))
    for name in observed:
        source, following = columns[name], columns[f"next_{name}"]
        if source.shape != following.shape:
            raise DataError(
                f"next_{name} has shape {following.shape}, {name} has shape {source.shape}"
            )
        whole = np.empty((len(source) + len(ends), *source.shape[1:]), source.dtype)
        last = np.zeros(len(whole), bool)
        last[ends + 1 + number] = True
        whole[~last] = source
        whole[last] = following[ends]
        rest[name] = whole
    return rest, True


# ---- episodes ---------------------------------------------------------------------------------


def _trajectory(episode: Mapping[str, Any], *, number: int) -> Trajectory:
    taken = {alias for aliases in EPISODE_FLAGS.values() for alias in aliases}
    columns = _flatten({n: v for n, v in episode.items() if n not in taken | {"seed"}})
    columns = {n: c for n, c in columns.items() if n.split("/")[0] != "next_observations"}
    terminated = _ends_with(episode, EPISODE_FLAGS["terminated"])
    truncated = _ends_with(episode, EPISODE_FLAGS["truncated"])
    try:
        return Trajectory(
            columns=columns,
            terminated=terminated,
            truncated=truncated and not terminated,
            unfinished=not (terminated or truncated),
            seed=episode.get("seed"),
        )
    except DataError as error:
        raise DataError(f"episode {number}: {error}") from None


def _ends_with(episode: Mapping[str, Any], names: Sequence[str]) -> bool:
    for name in names:
        if name in episode:
            flags = np.asarray(episode[name]).reshape(-1)
            return bool(flags[-1]) if len(flags) else False
    return False
