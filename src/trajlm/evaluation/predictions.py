"""Predictions over a horizon beside what truly followed: error, likelihood and their intervals.

All in normalised units: each dimension over its deviation in the training data.

Legend: N windows, K observations of the past, H horizon, O observation entries, S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.protocols import Past
from trajlm.core.seeding import counter_bits
from trajlm.data.store import TrajectoryStore

RESOLUTION = 0.02
"""Added to every deviation of a likelihood: nothing is known more finely (half a bin of 100, roughly)."""
FARTHEST = 1e6
WINDOW_STREAM = 0x317D


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """N windows of episodes: what was seen, and what followed. `observations` (N, H, O): after
    1, ..., H steps of the `actions` (N, H, A)."""

    past: Past
    actions: np.ndarray
    observations: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(N, O)."""
        return self.past.observations[:, -1]


def recorded_windows(store: TrajectoryStore, *, known: int, horizon: int, count: int) -> Recorded:
    """At most `count` windows of `known` observations and `horizon` steps after them, drawn once by
    key from all that do not overlap. Raises `DataError` where no episode is long enough."""
    extra = 1 if store.has_last_observation else 0
    places = [
        (episode, present)
        for episode, length in enumerate(store.lengths.tolist())
        for present in range(known - 1, length + extra - horizon, known - 1 + horizon)
    ]
    if not places:
        raise DataError(
            f"{store.name or 'dataset'}: no episode has {known + horizon} observations; the longest has "
            f"{int(store.lengths.max()) + extra}"
        )
    order = np.argsort(counter_bits(WINDOW_STREAM, np.arange(len(places))), kind="stable")
    seen, acted, earned, followed = [], [], [], []
    for episode, present in (places[place] for place in np.sort(order[:count])):
        first, last = present - known + 1, present + horizon
        seen.append(store.rows("observations", episode)[first : last + 1])
        acted.append(store.rows("actions", episode)[first:last])
        earned.append(store.rows("rewards", episode)[first:present])
        followed.append(seen[-1][known:])
    observed, actions = np.stack(seen), np.stack(acted)
    past = Past(
        observations=observed[:, :known], actions=actions[:, : known - 1], rewards=np.stack(earned)
    )
    return Recorded(past=past, actions=actions[:, known - 1 :], observations=np.stack(followed))


def errors(predicted: np.ndarray, true: np.ndarray, *, std: np.ndarray) -> np.ndarray:
    """(N, H): the root of the mean over entries of squared normalised differences (N, H, O).

    Predictions that are not finite, or farther than `FARTHEST`, count as that far.
    """
    apart = (predicted.astype(np.float64) - true) / std
    return np.asarray(np.sqrt(np.square(_bounded(apart)).mean(axis=-1)))


def log_likelihoods(samples: np.ndarray, true: np.ndarray, *, std: np.ndarray) -> np.ndarray:
    """(N, H): nats a dimension of what truly followed (N, H, O) under S open-loop samples
    (S, N, H, O).

    Each step's marginal is judged, dimension by dimension: the density of Student's t with S - 1
    degrees of freedom around the samples' mean, which is what S draws of a Gaussian say of the
    next. So a model of bins and one of Gaussians are measured alike, in the same units.
    """
    count = len(samples)
    drawn = _bounded(samples.astype(np.float64) / std)
    freedom = count - 1
    variance = drawn.var(axis=0, ddof=1) * (1 + 1 / count) + RESOLUTION**2
    squared = np.square(true / std - drawn.mean(axis=0)) / variance
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    constant -= 0.5 * math.log(freedom * math.pi)
    density = constant - 0.5 * np.log(variance)
    density -= (freedom + 1) / 2 * np.log1p(squared / freedom)
    return np.asarray(density.mean(axis=-1))


def gaussian_log_likelihoods(true: np.ndarray, *, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(N, H): nats a dimension of (N, H, O) under the data's own deviations, whatever was seen: what a
    model that has lost all trace of its start can still say."""
    squared = np.square((true.astype(np.float64) - mean) / std)
    return np.asarray((-0.5 * (squared + math.log(2 * math.pi))).mean(axis=-1))


def medians(
    values: np.ndarray, *, seed: int = 0, level: float = 0.95, resamples: int = 500
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Medians (H,) over windows (N, H), and the ends of their percentile bootstrap intervals."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(values), (resamples, len(values)))
    drawn = np.stack([np.median(values[each], axis=0) for each in rows])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.median(values, axis=0), low, high


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein's distance between two samples of numbers, in their units."""
    levels = (np.arange(512) + 0.5) / 512
    apart = np.quantile(_bounded(first), levels) - np.quantile(_bounded(second), levels)
    return float(np.abs(apart).mean())


def _bounded(values: np.ndarray) -> np.ndarray:
    bounded = np.nan_to_num(values, nan=FARTHEST, posinf=FARTHEST, neginf=-FARTHEST)
    return np.asarray(np.clip(bounded, -FARTHEST, FARTHEST))
