"""The dataset's doctor: rules with ids over a store, and what was found while it was read.

Rules and their ids are listed in `findings.RULES`. An error makes the data unfit to train on; a
warning is for the user to judge. Each rule gives one finding, which counts all and names the
first episode and step, by the numbers of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trajlm.core.spec import Box, Discrete, MultiDiscrete, leaves
from trajlm.data.findings import Finding, Severity, findings_of
from trajlm.data.statistics import BLOCK_ROWS, column_statistics, constant_dimensions
from trajlm.data.store import Segment, TrajectoryStore, is_observation

LISTED = 20
FEW_EPISODES = 10
# An asked return is covered where at least this many episodes end within a tenth of the range.
COVERED_BY, COVERED_WITHIN = 3, 0.1
# Actions are clipped in float64 and stored in float32: their last bit may stick out.
BOUND_TOLERANCE = 1e-5


def check(
    store: TrajectoryStore,
    *,
    asked_returns: Sequence[float] = (),
    max_timestep: int | None = None,
) -> list[Finding]:
    """Every rule over the store; errors first, then by id.

    `asked_returns`: the targets a policy will be asked for. `max_timestep`: rows of the model's
    timestep table.
    """
    findings = [*findings_of(store.metadata), *integrity(store)]
    findings += _end_flags(store)
    findings += _constant_dimensions(store)
    findings += _returns(store, asked_returns)
    if max_timestep is not None:
        findings += _too_long(store, max_timestep)
    findings = _without_repeats(findings)
    return sorted(findings, key=lambda finding: (finding.severity != "error", finding.rule))


def integrity(store: TrajectoryStore) -> list[Finding]:
    """The rules that loading applies: finite values, steps in each episode, actions in their space."""
    findings = []
    for column in store.column_names:
        if store.segments[0].columns[column].dtype.kind == "f":
            findings += _not_finite(store, column)
    empty = np.flatnonzero(store.lengths == 0)
    if len(empty):
        numbers = file_numbers(store, empty)
        message = f"{len(empty)} episodes have no steps (first: episode {numbers[0]})"
        findings.append(_finding("D003", message, numbers))
    for column, space in leaves(store.action_space, "actions").items():
        findings += _outside(store, column, space)
    return findings


def file_numbers(store: TrajectoryStore, positions: np.ndarray) -> np.ndarray:
    """The episodes at these positions of a view, by their numbers in the file."""
    bases = np.cumsum([0] + [len(segment.lengths) for segment in store.segments])
    chosen = store.index[positions]
    numbers = bases[chosen[:, 0]] + chosen[:, 1]
    kept = store.metadata.get("file_episodes")
    if isinstance(kept, list | tuple) and len(kept) == len(store.segments[0].lengths):
        first = chosen[:, 0] == 0
        numbers = np.where(first, np.asarray(kept)[np.where(first, chosen[:, 1], 0)], numbers)
    return np.asarray(numbers)


# ---- rules over rows ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _BadRows:
    """Rows of one column that break a rule: `count` of them, in the view positions `episodes`
    (sorted); the first lies in `episodes[0]` at `step` and reads `value`."""

    count: int
    episodes: np.ndarray
    step: int
    value: np.ndarray


def _not_finite(store: TrajectoryStore, column: str) -> list[Finding]:
    bad = _bad_rows(store, column, lambda rows: ~np.isfinite(rows).all(axis=1))
    if bad is None:
        return []
    numbers = file_numbers(store, bad.episodes)
    dimension = int(np.argmax(~np.isfinite(bad.value)))
    where = f"{column}[{dimension}]" if len(bad.value) > 1 else column
    message = (
        f"{where} is {bad.value[dimension]} at episode {numbers[0]}, step {bad.step}; "
        f"{bad.count} rows of {column} in {len(numbers)} episodes"
    )
    return [_finding("D001", message, numbers)]


def _outside(
    store: TrajectoryStore, column: str, space: Box | Discrete | MultiDiscrete
) -> list[Finding]:
    """Actions past the bounds: a warning for real ones, an error for those that do not exist."""
    if isinstance(space, Box):
        if space.low is None or space.high is None:
            return []
        low = np.asarray(space.low) - BOUND_TOLERANCE
        high = np.asarray(space.high) + BOUND_TOLERANCE
    elif isinstance(space, Discrete):
        low, high = np.array([space.start]), np.array([space.start + space.n - 1])
    else:
        low, high = np.zeros(len(space.nvec)), np.asarray(space.nvec) - 1
    bad = _bad_rows(store, column, lambda rows: np.any((rows < low) | (rows > high), axis=1))
    if bad is None:
        return []
    numbers = file_numbers(store, bad.episodes)
    dimension = int(np.argmax((bad.value < low) | (bad.value > high)))
    message = (
        f"{column}[{dimension}] is {bad.value[dimension]:g} at episode {numbers[0]}, step "
        f"{bad.step}, outside {low[dimension]:g} to {high[dimension]:g}; {bad.count} steps in "
        f"{len(numbers)} episodes"
    )
    finding = _finding("D007", message, numbers, error=not isinstance(space, Box))
    return [finding]


def _bad_rows(
    store: TrajectoryStore, column: str, broken: Callable[[np.ndarray], np.ndarray]
) -> _BadRows | None:
    """Rows (n, entries) for which `broken` is True, looked at block by block."""
    count, found, first = 0, [], None
    for number, segment in enumerate(store.segments):
        positions = np.full(len(segment.lengths), -1)
        here = store.index[:, 0] == number
        positions[store.index[here, 1]] = np.flatnonzero(here)
        starts = _first_rows(segment, column)
        for start, block in _segment_blocks(segment, column):
            rows = np.flatnonzero(broken(block.reshape(len(block), -1))) + start
            episodes = np.searchsorted(starts, rows, side="right") - 1
            rows, episodes = rows[positions[episodes] >= 0], episodes[positions[episodes] >= 0]
            count += len(rows)
            found.append(np.unique(positions[episodes]))
            for row, episode in zip(rows[:1].tolist(), episodes[:1].tolist(), strict=True):
                candidate = (
                    int(positions[episode]),
                    row - int(starts[episode]),
                    block[row - start],
                )
                first = min(first or candidate, candidate, key=lambda c: c[:2])
    if first is None:
        return None
    _, step, value = first
    episodes = np.unique(np.concatenate(found))
    return _BadRows(count, episodes, step, np.asarray(value).reshape(-1))


def _segment_blocks(segment: Segment, column: str) -> Iterator[tuple[int, np.ndarray]]:
    rows = segment.columns[column]
    for start in range(0, len(rows), BLOCK_ROWS):
        yield start, np.asarray(rows[start : start + BLOCK_ROWS])


def _first_rows(segment: Segment, column: str) -> np.ndarray:
    """(E,) first row of each episode; an empty episode shares its row with the next one."""
    starts = segment.offsets[:-1]
    if is_observation(column) and segment.has_last_observation:
        starts = starts + np.arange(len(starts))
    return np.asarray(starts)


# ---- rules over episodes ------------------------------------------------------------------------


def _end_flags(store: TrajectoryStore) -> Iterator[Finding]:
    both = np.flatnonzero(store.terminated & store.truncated)
    if len(both):
        numbers = file_numbers(store, both)
        message = f"{len(both)} episodes are terminated and truncated (first: episode {numbers[0]})"
        yield _finding("D004", message, numbers, error=False)
    neither = np.flatnonzero(~(store.terminated | store.truncated) & (store.lengths > 0))
    if len(neither):
        numbers = file_numbers(store, neither)
        message = (
            f"{len(neither)} episodes end with neither flag (first: episode {numbers[0]}); "
            f"they count as unfinished and are left out of returns and of training"
        )
        yield _finding("D005", message, numbers, error=False)


def _constant_dimensions(store: TrajectoryStore) -> Iterator[Finding]:
    names = [
        *leaves(store.observation_space, "observations"),
        *leaves(store.action_space, "actions"),
    ]
    for name in [*names, "rewards"]:
        if store.num_steps and store.segments[0].columns[name].dtype.kind == "f":
            statistics = column_statistics(store, name)
            constant = constant_dimensions(statistics)
            if len(constant):
                listed = ", ".join(
                    f"{name}[{d}]" if len(statistics.low) > 1 else name for d in constant[:LISTED]
                )
                message = f"{listed} never change{'s' if len(constant) == 1 else ''}"
                message += f" (value {statistics.low[constant[0]]:g})"
                yield Finding(rule="D008", severity="warning", message=message)


def _returns(store: TrajectoryStore, asked_returns: Iterable[float]) -> Iterator[Finding]:
    returns = store.finished.returns
    returns = returns[np.isfinite(returns)]
    if len(returns) < FEW_EPISODES:
        message = f"{len(returns)} finished episodes"
        yield Finding(rule="D011", severity="warning" if len(returns) else "error", message=message)
    if not len(returns):
        return
    low, high = float(returns.min()), float(returns.max())
    for asked in asked_returns:
        if not low <= asked <= high:
            message = f"the asked return {asked:g} lies outside the data's {low:g} to {high:g}"
            yield Finding(rule="D010", severity="warning", message=message)
            continue
        near = int((np.abs(returns - asked) <= COVERED_WITHIN * (high - low)).sum())
        if near < COVERED_BY:
            message = (
                f"the asked return {asked:g} has {near} of {len(returns)} episodes within a tenth "
                f"of the data's range"
            )
            yield Finding(rule="D012", severity="warning", message=message)


def _too_long(store: TrajectoryStore, max_timestep: int) -> Iterator[Finding]:
    long = np.flatnonzero(store.lengths > max_timestep)
    if len(long):
        numbers = file_numbers(store, long)
        worst = int(store.lengths.max())
        message = (
            f"{len(long)} episodes are longer than the timestep table of {max_timestep} (first: "
            f"episode {numbers[0]}; longest: {worst} steps); set max_timestep to {worst} or more"
        )
        yield _finding("D009", message, numbers)


def _finding(rule: str, message: str, numbers: np.ndarray, *, error: bool = True) -> Finding:
    episodes = tuple(int(number) for number in numbers[:LISTED])
    severity: Severity = "error" if error else "warning"
    return Finding(rule=rule, severity=severity, message=message, episodes=episodes)


def _without_repeats(findings: Iterable[Finding]) -> list[Finding]:
    return list({(finding.rule, finding.message): finding for finding in findings}.values())
