"""Errors, likelihoods and their intervals by hand; windows that do not overlap; true physics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trajlm.core.errors import DataError, EnvironmentFault
from trajlm.data.sources.synthetic import synthetic
from trajlm.envs.make import make_environment
from trajlm.envs.worlds import HUMANOID
from trajlm.evaluation.physics import Physics, Plain
from trajlm.evaluation.predictions import (
    FARTHEST,
    RESOLUTION,
    distance,
    errors,
    gaussian_log_likelihoods,
    log_likelihoods,
    medians,
    recorded_windows,
)


def test_windows_do_not_overlap_and_hold_what_was_recorded() -> None:
    store = synthetic("box", episodes=10, seed=0)
    found = recorded_windows(store, known=3, horizon=6, count=1000)
    assert len(found.present) == sum((n + 1 - 9) // 8 + 1 for n in store.lengths.tolist() if n >= 8)
    episode = store.rows("observations", 0)
    assert np.array_equal(found.past.observations[0], episode[:3])
    assert np.array_equal(found.observations[0], episode[3:9])
    assert np.array_equal(found.past.actions[0], store.rows("actions", 0)[:2])
    assert np.array_equal(found.actions[0], store.rows("actions", 0)[2:8])
    assert np.array_equal(found.past.rewards[0], store.rows("rewards", 0)[:2])
    few = recorded_windows(store, known=3, horizon=6, count=4)
    assert few.observations.shape == (4, 6, 4)
    assert all((few.present[n] == found.present).all(1).any() for n in range(4))
    with pytest.raises(DataError, match="no episode has"):
        recorded_windows(store, known=3, horizon=100, count=4)


def test_errors_are_in_deviations_and_bounded() -> None:
    true = np.zeros((2, 1, 2))
    predicted = np.array([[[3.0, 0.0]], [[np.nan, np.inf]]])
    found = errors(predicted, true, std=np.array([1.0, 2.0]))
    np.testing.assert_allclose(found[:, 0], [math.sqrt(4.5), FARTHEST])


def test_likelihoods_of_two_samples_are_cauchys_and_of_many_gaussian() -> None:
    samples = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    scale = 2 * 1.5 + RESOLUTION**2  # the samples' variance, and of their mean
    expected = -math.log(math.pi * math.sqrt(scale)) - math.log1p(0.25 / scale)
    found = log_likelihoods(samples, np.full((1, 1, 1), 0.5), std=np.ones(1))
    assert found[0, 0] == pytest.approx(expected, rel=1e-6)
    drawn = np.random.default_rng(0).normal(2.0, 3.0, (20_000, 1, 1, 1))
    many = log_likelihoods(drawn, np.full((1, 1, 1), 2.0), std=np.full(1, 3.0))[0, 0]
    plain = gaussian_log_likelihoods(
        np.full((1, 1, 1), 2.0), mean=np.full(1, 2.0), std=np.full(1, 3.0)
    )
    assert plain[0, 0] == pytest.approx(-0.5 * math.log(2 * math.pi))
    assert many == pytest.approx(plain[0, 0], abs=0.02)


def test_a_better_model_has_more_likelihood_and_an_exploded_one_is_finite() -> None:
    true = np.zeros((3, 2, 2))
    generator = np.random.default_rng(0)
    near, far = (generator.normal(0, s, (8, 3, 2, 2)) for s in (0.1, 1.0))
    exploded = np.full((8, 3, 2, 2), np.inf)
    one, two, three = (
        log_likelihoods(each, true, std=np.ones(2)) for each in (near, far, exploded)
    )
    assert (one > two).all() and (two > three).all() and np.isfinite(three).all()


def test_medians_lie_in_their_intervals_and_distances_are_in_units() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)) + np.array([0.0, 5.0, 10.0])
    middle, low, high = medians(values)
    assert ((low <= middle) & (middle <= high)).all() and (high - low < 1.5).all()
    assert distance(np.arange(100.0), np.arange(100.0) + 2.5) == pytest.approx(2.5)


def test_a_humanoid_is_replayed_and_measured_whatever_its_orientations_length() -> None:
    environment = make_environment(HUMANOID)
    observation, _ = environment.reset(seed=3)
    generator = np.random.default_rng(0)
    actions = generator.uniform(-0.4, 0.4, (10, 17)).astype(np.float32)
    episode = np.array([observation, *(environment.step(action)[0] for action in actions)])
    environment.close()
    physics = Physics(HUMANOID)
    np.testing.assert_allclose(physics.replay(episode[0], actions), episode[1:], atol=1e-9)
    coarse = physics.replay(episode[0], actions, rounded=lambda seen: seen.round(1))
    assert np.array_equal(coarse, coarse.round(1)) and np.abs(coarse - episode[1:]).mean() > 1e-3
    again = physics.replay(coarse[3], actions[4:], rounded=lambda seen: seen.round(1))
    np.testing.assert_array_equal(again, coarse[4:])
    longer = episode.copy()
    longer[:, 1:5] *= 3.0
    measured, same = physics.measure(episode), physics.measure(longer)
    np.testing.assert_allclose(measured.height, episode[:, 0])
    np.testing.assert_allclose(measured.speed, episode[:, 22])
    np.testing.assert_allclose(same.energy, measured.energy)
    names = physics.body.names
    assert len(names) == 45 and names[22] == "forward velocity (m/s)"
    assert names[5] == "abdomen z (rad)" and names[28] == "abdomen z velocity (rad/s)"
    physics.close()


def test_the_true_dynamics_repeat_an_episode_and_measure_it() -> None:
    environment = make_environment("Hopper-v5")
    observation, _ = environment.reset(seed=3)
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (10, 3)).astype(np.float32)
    episode = [observation, *(environment.step(action)[0] for action in actions)]
    environment.close()
    physics = Physics("Hopper-v5")
    again = physics.replay(episode[0], actions)
    np.testing.assert_allclose(again, episode[1:], atol=1e-6)
    measured = physics.measure(np.array([*episode, np.full(11, np.nan), [0.1, *episode[0][1:]]]))
    np.testing.assert_allclose(measured.height[:11], np.array(episode)[:, 0])
    np.testing.assert_allclose(measured.speed[:11], np.array(episode)[:, 5])
    assert measured.healthy[:5].all() and not measured.healthy[-2:].any()
    assert (measured.energy[:11] > 0).all()
    plain = Plain(energy=(0.0, 1e4), overshoot=0.1)
    assert plain.plausible(measured)[:5].all() and not plain.plausible(measured)[-2:].any()
    bent = episode[0].copy()
    bent[4] = 2.0  # a foot turns by 45 degrees at most
    assert physics.measure(bent[None]).overshoot[0] == pytest.approx(
        2.0 - math.radians(45), abs=1e-3
    )
    physics.close()
    with pytest.raises(EnvironmentFault, match="no body that is observed whole"):
        Physics("CartPole-v1")
