"""Normalised scores against the published references, and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from trajlm.core.errors import DataError, UsageError
from trajlm.evaluation.group import group_rows
from trajlm.evaluation.scores import (
    D4RL_REFERENCES,
    body_of,
    bootstrap_interval,
    d4rl_score,
    dataset_score,
    interquartile_mean,
)


@pytest.mark.parametrize(
    ("env_id", "body"),
    [
        ("HalfCheetah-v5", "halfcheetah"),
        ("Hopper-v2", "hopper"),
        ("walker2d-medium-v2", None),
        ("Walker2d-v4", "walker2d"),
        ("Ant-v5", "ant"),
        ("somewhere/Ant-v5", "ant"),
        ("AntMaze-v4", None),
        ("HalfCheetah", "halfcheetah"),
        ("CartPole-v1", None),
    ],
)
def test_the_body_is_found_whatever_the_version(env_id, body):
    assert body_of(env_id) == body


def test_d4rl_scores_are_the_published_ones():
    low, high = D4RL_REFERENCES["hopper"]
    np.testing.assert_allclose(d4rl_score("Hopper-v5", np.array([low, high])), [0, 100])
    # Half-cheetah, medium: a return of 4770 is the 40.7 that papers print.
    np.testing.assert_allclose(d4rl_score("HalfCheetah-v5", np.array([4770.0])), 40.68, atol=0.01)
    assert d4rl_score("CartPole-v1", np.array([1.0])) is None


def test_dataset_score_maps_its_references():
    np.testing.assert_allclose(dataset_score(np.array([10.0, 30.0]), low=10, high=30), [0, 100])
    with pytest.raises(UsageError, match="not above"):
        dataset_score(np.array([1.0]), low=2.0, high=2.0)


def test_the_interquartile_mean_is_scipys_trimmed_mean():
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for size in (1, 3, 4, 5, 17, 100):
        values = generator.normal(size=size)
        assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_bootstrap_intervals():
    generator = np.random.default_rng(0)
    values = generator.normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)
    assert bootstrap_interval(values, seed=1) == (low, high)
    assert bootstrap_interval([3.0], seed=1) is None
    assert bootstrap_interval([3.0, 3.0], seed=1) == (3.0, 3.0)


def test_intervals_cover_at_about_their_level():
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(300):
        low, high = bootstrap_interval(generator.normal(size=50), seed=trial, resamples=400)
        covered += low <= 0 <= high
    assert 0.89 < covered / 300 < 0.99


def result(mean: float | None, *, target: float = 100.0) -> dict:
    row = {"target_return": target, "episodes": 5, "failed": 0 if mean is not None else 5}
    row |= {"return_mean": mean, "d4rl_score": mean, "dataset_score": None, "length_mean": 7.0}
    return {"protocol": {}, "rows": [row | {"env_id": "Hopper-v5", "mujoco": "4.0.0"}]}


def test_a_group_is_scored_over_its_seeds():
    (row,) = group_rows([result(10.0), result(20.0), result(30.0)])
    assert (row["seeds"], row["return_mean"], row["d4rl_score"]) == (3, 20.0, 20.0)
    assert row["return_means"] == [10.0, 20.0, 30.0]
    assert row["return_interval"] == pytest.approx((10.0, 30.0), abs=4)
    assert row["dataset_score"] is None
    assert row["dataset_interval"] is None
    assert "seeds" in row["interval_kind"]


def test_a_run_without_a_sound_episode_does_not_vanish_from_a_group():
    (row,) = group_rows([result(10.0), result(None)])
    assert row["return_means"] == [10.0, None]
    assert (row["failed"], row["return_mean"], row["return_interval"]) == (5, 10.0, None)


def test_runs_at_different_targets_are_not_grouped():
    with pytest.raises(DataError, match="scored at"):
        group_rows([result(1.0), result(1.0, target=5.0)])
