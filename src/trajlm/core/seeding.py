"""Randomness by counter: a draw is a pure function of (seed, step, lane, stream).

A batched run and a single run draw alike, whatever the order of slots, and a resumed run has no
generator state to restore. The mixing function is SplitMix64's finaliser (Steele et al. 2014),
applied once for each counter word.
"""

from __future__ import annotations

import functools

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_START = 0x243F6A8885A308D3


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIER_1
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIER_2
    return np.asarray(value ^ (value >> np.uint64(31)))


def _word(value: np.ndarray | int) -> np.ndarray:
    """A counter word, mixed once; array arithmetic wraps without a warning."""
    return _mix(np.atleast_1d(np.asarray(value)).astype(np.int64).view(np.uint64) + _GOLDEN)


def counter_bits(*words: np.ndarray | int) -> np.ndarray:
    """64 random bits for each broadcast combination of the integer counter words."""
    state = np.full(1, _START, np.uint64)
    for word in words:
        state = _mix((state + _GOLDEN) ^ _word(word))
    return state.reshape(np.broadcast_shapes(*(np.shape(word) for word in words)))


def derive(*words: int) -> int:
    """A 63-bit seed derived from the words, for a generator of some library."""
    return int(counter_bits(*words) >> np.uint64(1))


@functools.cache
def _lanes_and_streams(lanes: int, streams: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return _word(np.arange(lanes)), _word(np.array(streams))


def _unit(
    seed: np.ndarray, step: np.ndarray, *, lanes: int, streams: tuple[int, ...]
) -> np.ndarray:
    """Uniform draws in (0, 1): (S, N, lanes), from `counter_bits(seed, step, lane, stream)`.

    Written out, so that streams share the words before them and constant words are mixed once:
    a policy draws at every step, and small arrays cost what their number of operations costs.
    """
    lane, stream = _lanes_and_streams(lanes, streams)
    words = _word(np.stack([seed, step]))
    state = _mix((np.full(1, _START, np.uint64) + _GOLDEN) ^ words[0])
    state = _mix((state + _GOLDEN) ^ words[1])
    state = _mix((state[:, None] + _GOLDEN) ^ lane)
    bits = _mix((state + _GOLDEN) ^ stream[:, None, None])
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def uniform(seed: np.ndarray, step: np.ndarray, *, lanes: int, stream: int = 0) -> np.ndarray:
    """Uniform draws in (0, 1): (N,), (N,) -> (N, lanes) float64."""
    return np.asarray(_unit(seed, step, lanes=lanes, streams=(stream,))[0])


def normal(seed: np.ndarray, step: np.ndarray, *, lanes: int, stream: int = 0) -> np.ndarray:
    """Standard normal draws by Box and Muller: (N,), (N,) -> (N, lanes) float64."""
    first, second = _unit(seed, step, lanes=lanes, streams=(2 * stream, 2 * stream + 1))
    return np.asarray(np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second))
