"""Scores of returns: the two normalised ones, robust means and bootstrap intervals.

Statistics of a method are those of Agarwal et al. 2021 ("Deep Reinforcement Learning at the Edge of
the Statistical Precipice"), over a matrix of scores, a row for each training seed and a column for
each task. Written here and not taken from rliable, which no longer imports beside current pandas;
its outputs are recorded in the tests.

Legend: R training seeds, T tasks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from trajlm.core.errors import UsageError

Interval = tuple[float, float]

FEW_SEEDS = 5
"""Below this many training seeds an interval over them is itself uncertain."""

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


def mean(scores: np.ndarray) -> float:
    """The mean over tasks of the means over seeds: (R, T) -> scalar."""
    return float(_matrix(scores).mean(axis=0).mean())


def median(scores: np.ndarray) -> float:
    """The median over tasks of the means over seeds: (R, T) -> scalar."""
    return float(np.median(_matrix(scores).mean(axis=0)))


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of what is left after the lowest and the highest quarter: any shape -> scalar."""
    ordered = np.sort(np.asarray(values, np.float64), axis=None)
    cut = int(0.25 * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def optimality_gap(scores: np.ndarray, *, optimum: float = 100.0) -> float:
    """How far scores stay below `optimum` on average; above it counts as at it. Lower is better."""
    return float(optimum - np.minimum(_matrix(scores), optimum).mean())


def probability_of_improvement(first: np.ndarray, second: np.ndarray) -> float:
    """How probable it is that a run of `first` (R, T) beats one of `second` (R', T) on a task.

    The mean over tasks of Mann and Whitney's U over its greatest value; a tie counts half.
    """
    one, other = _matrix(first), _matrix(second)
    if one.shape[1] != other.shape[1]:
        raise UsageError(f"{one.shape[1]} tasks are compared with {other.shape[1]}")
    difference = one[:, None, :] - other[None, :, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of runs above each threshold, over all tasks: (R, T), (n,) -> (n,)."""
    above = _matrix(scores)[None] > np.asarray(thresholds, np.float64)[:, None, None]
    return np.asarray(above.mean(axis=(1, 2)))


def stratified_bootstrap(
    statistic: Callable[..., float],
    *scores: np.ndarray,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval | None:
    """Percentile bootstrap interval of `statistic(*scores)`, each a matrix (R, T).

    Seeds are drawn anew within every task, so that each task keeps its weight. None where a matrix
    has fewer than two seeds: nothing could vary.
    """
    matrices = [_matrix(each) for each in scores]
    if any(len(each) < 2 for each in matrices):
        return None
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(*(_resampled(each, generator) for each in matrices)) for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's, with mean ranks for ties; 0 where one side says nothing."""
    ranks = []
    for values in (first, second):
        sample = np.asarray(values, np.float64)
        above = sample[:, None] - sample
        ranks.append(((above > 0) + 0.5 * (above == 0)).sum(axis=1))
    if min(len(each) for each in ranks) < 2 or any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def wilson_interval(successes: int, episodes: int, *, quantile: float = 1.959964) -> Interval:
    """Wilson's interval (1927) of a probability, of successes among `episodes`; 95% by default.

    `quantile`: of the standard normal distribution.
    """
    if not 0 <= successes <= episodes or episodes < 1:
        raise UsageError(f"{successes} successes among {episodes} episodes")
    share, square = successes / episodes, quantile**2
    middle = (successes + square / 2) / (episodes + square)
    inner = share * (1 - share) / episodes + square / (4 * episodes**2)
    half = episodes * quantile * inner**0.5 / (episodes + square)
    # Rounding must leave the share inside.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _matrix(scores: np.ndarray) -> np.ndarray:
    matrix = np.asarray(scores, np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise UsageError(f"scores of shape {matrix.shape}: seeds x tasks are needed, one at least")
    return matrix


def _resampled(scores: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.take_along_axis(scores, generator.integers(0, len(scores), scores.shape), axis=0)
