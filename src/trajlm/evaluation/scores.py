"""Scores of returns: the two normalised ones, robust means and bootstrap intervals.

Written here and not taken from rliable, which no longer imports beside current pandas; the
interquartile mean is `scipy.stats.trim_mean(x, 0.25)`, as rliable's is (Agarwal et al. 2021).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from trajlm.core.errors import UsageError

Interval = tuple[float, float]

D4RL_REFERENCES: dict[str, Interval] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}
"""D4RL's (random, expert) returns by body, the same for every dataset and version (Fu et al. 2020).

They were measured with MuJoCo 2 and the -v2 environments."""


def body_of(env_id: str) -> str | None:
    """The D4RL body of an environment id of any version, None for others: `Hopper-v5` -> hopper."""
    match = re.fullmatch(r"(?:.*/)?([A-Za-z0-9]+?)(?:-v\d+)?", env_id)
    name = match.group(1).lower() if match else ""
    return name if name in D4RL_REFERENCES else None


def d4rl_score(env_id: str, returns: np.ndarray) -> np.ndarray | None:
    """100 (R - random) / (expert - random) with D4RL's references; None for other environments."""
    body = body_of(env_id)
    if body is None:
        return None
    low, high = D4RL_REFERENCES[body]
    return dataset_score(returns, low=low, high=high)


def dataset_score(returns: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """100 (R - low) / (high - low): 0 the random behaviour's mean return, 100 the expert's."""
    if not high > low:
        raise UsageError(f"reference returns: high {high} is not above low {low}")
    return np.asarray(100.0 * (np.asarray(returns, np.float64) - low) / (high - low))


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of what is left after the lowest and the highest quarter: (n,) -> scalar."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = int(0.25 * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval | None:
    """Percentile bootstrap interval of the mean of `values` (n,); None below two values."""
    sample = np.asarray(values, np.float64)
    if len(sample) < 2:
        return None
    generator = np.random.default_rng(seed)
    means = sample[generator.integers(0, len(sample), (resamples, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
