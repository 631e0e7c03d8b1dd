"""Normalised scores against the published references, and intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trajlm.core.errors import DataError, UsageError
from trajlm.evaluation import scores as statistics
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
    protocol = {"env_id": "Hopper-v5", "mujoco": "4.0.0", "targets": [target], "episodes": 5}
    return {"protocol": protocol, "rows": [row | {"env_id": "Hopper-v5", "mujoco": "4.0.0"}]}


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


@pytest.mark.parametrize(
    ("key", "value", "label"),
    [
        ("targets", [5.0], "targets"),
        ("episodes", 6, "episodes"),
        ("evaluation_seed", 2000, "evaluation seed"),
        ("checkpoint", "best", "checkpoint"),
        ("env_id", "Hopper-v4", "environment"),
        ("mujoco", "3.3.0", "MuJoCo"),
        ("data_hash", "ab", "dataset version"),
    ],
)
def test_runs_that_were_measured_differently_have_no_average(key, value, label):
    other = result(1.0)
    other["protocol"][key] = value
    with pytest.raises(DataError, match=f"seed-0 and seed-1 .*: {label} "):
        group_rows([result(1.0), other], names=["seed-0", "seed-1"])


def test_last_checkpoints_of_different_lengths_have_no_average_best_ones_have():
    one, other = result(1.0), result(1.0)
    for found, updates in ((one, 3000), (other, 1500)):
        found["protocol"] |= {"checkpoint": "last", "updates": updates}
    with pytest.raises(DataError, match="updates 3000 and 1500"):
        group_rows([one, other])
    for found in (one, other):
        found["protocol"]["checkpoint"] = "best"
    assert group_rows([one, other])[0]["seeds"] == 2


# ---- over seeds and tasks, beside rliable ----------------------------------------------------------

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "rliable.json").read_text())
CASES = pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
STATISTICS = {
    "mean": statistics.mean,
    "median": statistics.median,
    "iqm": statistics.interquartile_mean,
    "optimality_gap": lambda scores: statistics.optimality_gap(scores, optimum=1.0),
}


@CASES
def test_point_estimates_are_those_of_rliable(case):
    first, second = np.array(case["first"]), np.array(case["second"])
    for name, statistic in STATISTICS.items():
        assert statistic(first) == pytest.approx(case["points"][name], abs=1e-12), name
    better = statistics.probability_of_improvement(first, second)
    assert better == pytest.approx(case["probability_of_improvement"], abs=1e-12)


@CASES
def test_profiles_are_those_of_rliable(case):
    found = statistics.performance_profile(np.array(case["first"]), np.array(case["thresholds"]))
    np.testing.assert_allclose(found, case["profile"], atol=1e-12)


@CASES
def test_intervals_are_those_of_rliable_to_three_digits(case):
    """Both are random: 20,000 resamples leave the ends of an interval a few thousandths of its width."""
    for name, statistic in STATISTICS.items():
        low, high = case["intervals"][name]
        found = statistics.stratified_bootstrap(
            statistic, np.array(case["first"]), seed=3, resamples=20_000
        )
        assert found == pytest.approx((low, high), abs=max(5e-4, 0.02 * (high - low))), name


@CASES
def test_intervals_of_improvement_are_those_of_rliable(case):
    found = statistics.stratified_bootstrap(
        statistics.probability_of_improvement,
        *(np.array(case["first"]), np.array(case["second"])),
        seed=3,
    )
    assert found == pytest.approx(case["probability_interval"], abs=0.05)


MATRICES = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000)).map(
    lambda drawn: np.random.default_rng(drawn[2]).integers(0, 9, drawn[:2]).astype(float)
)


@given(MATRICES, st.floats(0.1, 10), st.floats(-100, 100))
def test_means_follow_a_change_of_scale_and_the_rank_statistics_do_not(scores, factor, shift):
    changed = factor * scores + shift
    for statistic in (statistics.mean, statistics.median, statistics.interquartile_mean):
        assert statistic(changed) == pytest.approx(factor * statistic(scores) + shift, abs=1e-6)
    forth = statistics.probability_of_improvement(scores, scores[::-1] + 1)
    back = statistics.probability_of_improvement(scores[::-1] + 1, scores)
    assert forth + back == pytest.approx(1.0)
    assert statistics.probability_of_improvement(scores, scores) == pytest.approx(0.5)


def test_one_seed_has_no_interval_and_no_scores_are_an_error():
    assert statistics.stratified_bootstrap(statistics.mean, np.ones((1, 4))) is None
    with pytest.raises(UsageError, match="seeds x tasks"):
        statistics.mean(np.ones(3))
    with pytest.raises(UsageError, match="2 tasks are compared with 3"):
        statistics.probability_of_improvement(np.ones((1, 2)), np.ones((1, 3)))
