"""Columns computed from others, episode by episode: returns-to-go, value-to-go, timesteps.

Legend: M rows of all episodes, laid end to end; E episodes; `offsets` (E+1,) int64.
"""

from __future__ import annotations

import numpy as np


def discounted_sum_to_go(
    rewards: np.ndarray, offsets: np.ndarray, *, discount: float = 1.0
) -> np.ndarray:
    """R_t = r_t + discount * R_{t+1} within each episode: (M,) -> (M,) float64.

    Sums run in float64 from each episode's end, so no episode's rounding leaks into another.
    Undiscounted: returns-to-go (Decision Transformer, section 3).
    """
    values = np.asarray(rewards, np.float64)
    result = np.empty_like(values)
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        if discount == 1.0:
            result[start:stop] = np.cumsum(values[start:stop][::-1])[::-1]
        else:
            total = 0.0
            for row in range(stop - 1, start - 1, -1):
                total = values[row] + discount * total
                result[row] = total
    return result


def value_to_go(rewards: np.ndarray, offsets: np.ndarray, *, discount: float) -> np.ndarray:
    """V_t = sum_{k>=1} discount^(k-1) r_{t+k}, WITHOUT r_t: (M,) -> (M,) float64.

    The published Trajectory Transformer's code defines it so (its paper includes r_t); only this
    form makes its planner's score, sum of discount^i r_i plus discount^(t+1) V_t, a discounted
    return. V_t is the discounted sum of the step after, and 0 at an episode's last step.
    """
    sums = discounted_sum_to_go(rewards, offsets, discount=discount)
    values = np.zeros_like(sums)
    values[:-1] = sums[1:]
    values[offsets[1:][np.diff(offsets) > 0] - 1] = 0.0
    return values


def delayed(rewards: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each episode's whole return at its last step, zero before it: (M,) -> (M,) float64.

    The delayed-reward setting of the Decision Transformer (section 5.3): its return-to-go is the
    same at every step.
    """
    values = np.asarray(rewards, np.float64)
    result = np.zeros_like(values)
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        if stop > start:
            result[stop - 1] = values[start:stop].sum()
    return result


def timesteps(offsets: np.ndarray) -> np.ndarray:
    """Steps since the episode's start: (M,) int64."""
    lengths = np.diff(offsets)
    return np.asarray(np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], lengths))
