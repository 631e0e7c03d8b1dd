"""Randomness by counter: a draw is a pure function of (seed, step, lane, stream).

A batched run and a single run draw alike, whatever the order of slots, and a resumed run has no
generator state to restore. The mixing function is SplitMix64's finaliser (Steele et al. 2014),
applied once for each counter word.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIER_1
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIER_2
    return value ^ (value >> np.uint64(31))


def counter_bits(*words: np.ndarray | int) -> np.ndarray:
    """64 random bits for each broadcast combination of the integer counter words."""
    with np.errstate(over="ignore"):
        state = np.asarray(0x243F6A8885A308D3, np.uint64)
        for word in words:
            value = np.asarray(word).astype(np.int64).view(np.uint64)
            state = _mix((state + _GOLDEN) ^ _mix(value + _GOLDEN))
    return np.asarray(state)


def derive(*words: int) -> int:
    """A 63-bit seed derived from the words, for a generator of some library."""
    return int(counter_bits(*words) >> np.uint64(1))


def uniform(seed: np.ndarray, step: np.ndarray, *, lanes: int, stream: int = 0) -> np.ndarray:
    """Uniform draws in (0, 1): (N,), (N,) -> (N, lanes) float64."""
    lane = np.arange(lanes)[None, :]
    bits = counter_bits(np.asarray(seed)[:, None], np.asarray(step)[:, None], lane, stream)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: np.ndarray, step: np.ndarray, *, lanes: int, stream: int = 0) -> np.ndarray:
    """Standard normal draws by Box and Muller: (N,), (N,) -> (N, lanes) float64."""
    first = uniform(seed, step, lanes=lanes, stream=2 * stream)
    second = uniform(seed, step, lanes=lanes, stream=2 * stream + 1)
    return np.asarray(np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second))
