"""Which episode, which start: windows as row numbers, with no data touched.

The published sampling (Decision Transformer): an episode with probability proportional to its
length, a start uniform over its steps, hence a uniform step of the whole dataset; the window runs
on to the episode's end at most and is padded on the right.

Legend: B windows, T their length, E episodes, M steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trajlm.core.seeding import counter_bits

EARLY_STEPS = 20
"""Steps that count as an episode's beginning."""


class Windows(NamedTuple):
    """`episode` (B,), `start` (B,) int64: the first step of each window within its episode."""

    episode: np.ndarray
    start: np.ndarray


def sample_windows(
    lengths: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    step: int,
    rank: int,
    version: int,
    from_start: bool = False,
    early_share: float = 0.0,
) -> Windows:
    """The windows of one batch: a pure function of its arguments. `lengths` (E,).

    `from_start`: the same episodes, each from its first step. `early_share`: the probability of a
    window to start within the first `EARLY_STEPS` of its episode, whatever is drawn for it.
    """
    ends = np.cumsum(lengths)
    lanes = np.arange(rank * batch_size, (rank + 1) * batch_size)
    bits = counter_bits(seed, step, version, lanes)
    step_rows = (bits % np.uint64(ends[-1])).astype(np.int64)
    episode = np.searchsorted(ends, step_rows, side="right")
    start = step_rows - (ends - lengths)[episode]
    if early_share:
        # 2^53: as many equal steps of (0, 1) as a float tells apart.
        chances = counter_bits(seed, step, version, lanes, 1) >> np.uint64(11)
        places = counter_bits(seed, step, version, lanes, 2)
        first = np.minimum(lengths[episode], EARLY_STEPS).astype(np.uint64)
        early = chances < np.uint64(early_share * 2**53)
        start = np.where(early, (places % first).astype(np.int64), start)
    return Windows(episode, np.zeros_like(start) if from_start else start)


def tile_windows(lengths: np.ndarray, *, length: int) -> Windows:
    """Every step exactly once: consecutive windows of each episode, in order."""
    counts = -(-lengths // length)
    episode = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Windows(episode, within * length)
