"""Mean, deviation and range of a column, in one pass over blocks of rows.

Blocks are merged by Chan, Golub and LeVeque's formula (1979), so that a million rows of large
numbers lose nothing to cancellation and a memory-mapped column is never whole in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.spec import Box, Statistics, leaves
from trajlm.data.store import TrajectoryStore

BLOCK_ROWS = 65_536


def column_statistics(store: TrajectoryStore, name: str) -> Statistics:
    """Per-dimension statistics of all rows of the store's episodes, last observations included.

    The deviation is the population's; it is exactly 0 where a dimension never changes (a floor
    under it is the normaliser's affair). NaN and infinities spread into the figures: the doctor
    names them. Raises `DataError` for a column that does not exist or has no row.
    """
    with np.errstate(invalid="ignore"):
        return _merged(store, name)


def _merged(store: TrajectoryStore, name: str) -> Statistics:
    count, mean, moment = 0, np.zeros(0), np.zeros(0)
    low, high = np.zeros(0), np.zeros(0)
    for block in blocks(store, name):
        rows = block.reshape(len(block), -1).astype(np.float64)
        block_mean = rows.mean(axis=0)
        block_moment = np.square(rows - block_mean).sum(axis=0)
        block_low, block_high = rows.min(axis=0), rows.max(axis=0)
        if count == 0:
            count, mean, moment = len(rows), block_mean, block_moment
            low, high = block_low, block_high
            continue
        total = count + len(rows)
        delta = block_mean - mean
        moment = moment + block_moment + np.square(delta) * (count * len(rows) / total)
        mean = mean + delta * (len(rows) / total)
        low, high = np.minimum(low, block_low), np.maximum(high, block_high)
        count = total
    if count == 0:
        raise DataError(f"dataset {store.name!r}: column {name!r} has no rows")
    # Rounding of a constant's mean must not look like a deviation.
    constant = low == high
    std = np.where(constant, 0.0, np.sqrt(moment / count))
    return Statistics(mean=np.where(constant, low, mean), std=std, low=low, high=high, count=count)


def constant_dimensions(statistics: Statistics) -> np.ndarray:
    """Indices (flat) of the dimensions that never change."""
    return np.flatnonzero(statistics.low == statistics.high)


def blocks(store: TrajectoryStore, name: str) -> Iterator[np.ndarray]:
    """The rows of the store's episodes in one column, some tens of thousands at a time."""
    if name not in store.column_names:
        raise DataError(f"dataset {store.name!r} has no column {name!r}")
    for number, segment in enumerate(store.segments):
        episodes = store.index[store.index[:, 0] == number, 1]
        if len(episodes) == len(segment.lengths) and len(np.unique(episodes)) == len(episodes):
            column = segment.columns[name]
            for start in range(0, len(column), BLOCK_ROWS):
                yield np.asarray(column[start : start + BLOCK_ROWS])
            continue
        pending: list[np.ndarray] = []
        waiting = 0
        for episode in episodes.tolist():
            pending.append(np.asarray(segment.rows(name, episode)))
            waiting += len(pending[-1])
            if waiting >= BLOCK_ROWS:
                yield np.concatenate(pending)
                pending, waiting = [], 0
        if waiting:
            yield np.concatenate(pending)


def fitted_statistics(store: TrajectoryStore) -> dict[str, np.ndarray]:
    """`NAME/mean` and `NAME/std` of every real-valued observation: what normalisers are fitted by."""
    fitted: dict[str, np.ndarray] = {}
    for name, space in leaves(store.observation_space, "observations").items():
        if isinstance(space, Box):
            statistics = column_statistics(store, name)
            fitted |= {f"{name}/mean": statistics.mean, f"{name}/std": statistics.std}
    return fitted
