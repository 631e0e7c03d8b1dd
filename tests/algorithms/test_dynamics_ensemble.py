"""The ensemble: its likelihood by hand, dynamics that it finds, rollouts by member, what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trajlm.algorithms.dynamics_ensemble.config import Config
from trajlm.algorithms.dynamics_ensemble.model import Model, step_targets
from trajlm.cli.main import main
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Past
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.synthetic import synthetic
from trajlm.data.store import TrajectoryStore
from trajlm.sequence.loader import Loader

CONFIG = Config(members=3, width=24, num_layers=3)


def linear_world(episodes: int = 30, steps: int = 20) -> TrajectoryStore:
    """x' = x + 0.5 a, and a reward of the first entry: known, and without noise."""
    generator = np.random.default_rng(0)
    trajectories = []
    for _ in range(episodes):
        actions = generator.uniform(-1, 1, (steps, 2))
        start = generator.normal(size=(1, 2))
        observations = np.concatenate([start, start + 0.5 * actions.cumsum(0)])
        columns = {
            "observations": observations,
            "actions": actions,
            "rewards": observations[:-1, 0],
        }
        trajectories.append(
            Trajectory(
                columns={name: column.astype(np.float32) for name, column in columns.items()},
                terminated=False,
                truncated=True,
            )
        )
    free = Box(shape=(2,), low=(-math.inf,) * 2, high=(math.inf,) * 2)
    bounded = Box(shape=(2,), low=(-1.0,) * 2, high=(1.0,) * 2)
    return TrajectoryStore.from_trajectories(
        trajectories, observation_space=free, action_space=bounded
    )


def trained(store: TrajectoryStore, *, updates: int) -> Model:
    prepared = Model.prepare(CONFIG, store)
    torch.manual_seed(0)
    model = Model.build(CONFIG, store.spec, prepared.fitted)
    loader = Loader(prepared.store, Model.windows(CONFIG, store.spec), batch_size=64, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(updates):
        optimizer.zero_grad()
        model.train()(loader.batch(step)).value.backward()
        optimizer.step()
    return model.eval()


def test_the_loss_is_the_likelihood_and_training_adds_the_bounds() -> None:
    store = linear_world()
    model = trained(store, updates=0)
    prepared = Model.prepare(CONFIG, store)
    batch = Loader(prepared.store, Model.windows(CONFIG, store.spec), batch_size=8, seed=0).batch(0)
    inputs = model.inputs(batch.columns["observations"], batch.actions)[:, 0]
    targets = model.targets(batch.columns["targets"])[:, 0]
    by_hand = []
    for member in range(3):
        mean, log_variance = model.gaussian(member, inputs)
        gaussian = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
        by_hand.append(-gaussian.log_prob(targets).mean())
    expected = torch.stack(by_hand).mean().item()
    assert model.eval()(batch).value.item() == pytest.approx(expected, rel=1e-5)
    apart = (model.highest - model.lowest).sum().item()
    assert model.train()(batch).value.item() == pytest.approx(expected + 0.01 / 6 * apart, rel=1e-5)


def test_known_dynamics_are_found_and_a_rollout_follows_them() -> None:
    model = trained(linear_world(), updates=400)
    start = np.zeros((1, 1, 2), np.float32)
    past = Past(observations=start, actions=np.zeros((1, 0, 2)), rewards=np.zeros((1, 0)))
    actions = np.tile(np.array([[0.5, -0.5]], np.float32), (1, 4, 1))
    found = model.world_model().predict(past, horizon=4, actions=actions)
    expected = 0.25 * np.arange(1, 5)[:, None] * np.array([1.0, -1.0])
    assert np.abs(found.observations[0] - expected).max() < 0.15
    assert np.abs(found.rewards[0] - np.concatenate([[0], expected[:-1, 0]])).max() < 0.15


def test_a_rollout_keeps_its_member_and_actions_may_be_a_policys() -> None:
    model = trained(linear_world(), updates=0)
    for member, layers in enumerate(model.members):  # each moves the state by its own number
        torch.nn.init.zeros_(layers[-1].weight)
        torch.nn.init.constant_(layers[-1].bias, float(member))
    with torch.no_grad():
        model.highest.fill_(-30.0)
        model.lowest.fill_(-31.0)
        model.targets.mean.zero_()
        model.targets.std.fill_(1.0)
    past = Past(
        observations=np.zeros((40, 1, 2), np.float32),
        actions=np.zeros((40, 0, 2), np.float32),
        rewards=np.zeros((40, 0), np.float32),
    )
    world = model.world_model()
    drawn = world.predict(
        past, horizon=3, actions=np.zeros((40, 3, 2), np.float32), seeds=np.arange(40)
    )
    pace = drawn.observations[:, 0, 0].round(3)
    assert set(pace.tolist()) == {0.0, 1.0, 2.0}
    np.testing.assert_allclose(drawn.observations[:, 2, 0], 3 * pace, atol=1e-3)
    kept = replace(world, within=np.array([[-1.0, -1.0], [2.5, 0.5]])).predict(
        past, horizon=3, actions=np.zeros((40, 3, 2), np.float32)
    )
    np.testing.assert_allclose(kept.observations[0], [[1, 0.5], [2, 0.5], [2.5, 0.5]], atol=1e-3)

    class Mirror:
        """Acts with what it sees."""

        def initial(self, num_envs, condition=None):
            return 0

        def act(self, carry, step):
            assert step.is_first.all() == (carry == 0)
            return carry + 1, np.asarray(step.observation)

    middle = world.predict(past, horizon=3, actions=Mirror())
    np.testing.assert_allclose(middle.observations[0, :, 0], [1, 2, 3], atol=1e-3)
    np.testing.assert_allclose(middle.actions[0, :, 0], [0, 1, 2], atol=1e-3)


def test_a_last_step_without_its_next_observation_is_not_learned_from() -> None:
    store = linear_world(episodes=2, steps=3)
    targets, known = step_targets(store.segments[0], 2)
    assert known.tolist() == [1] * 6
    actions = store.rows("actions", 0)
    np.testing.assert_allclose(targets[:3, :2], 0.5 * actions, atol=1e-6)
    short = {
        name: np.concatenate([store.rows(name, e)[:3] for e in range(2)])
        for name in store.column_names
    }
    cut = replace(store.segments[0], columns=short, has_last_observation=False)
    assert step_targets(cut, 2)[1].tolist() == [1, 1, 0, 1, 1, 0]


def test_hidden_entries_are_neither_seen_nor_predicted() -> None:
    store = synthetic("box", episodes=6, seed=0)
    config = replace(CONFIG, observation_size=3)
    model = Model.build(config, store.spec, Model.prepare(config, store).fitted).eval()
    past = Past(
        observations=np.ones((2, 1, 4), np.float32),
        actions=np.zeros((2, 0, 2), np.float32),
        rewards=np.zeros((2, 0), np.float32),
    )
    past.observations[1, 0, 3] = 9.0
    found = model.world_model().predict(past, horizon=2, actions=np.zeros((2, 2, 2), np.float32))
    assert found.observations.shape == (2, 2, 3)
    assert np.array_equal(found.observations[0], found.observations[1])
    with pytest.raises(UsageError, match="observation_size: 5"):
        Model.prepare(replace(CONFIG, observation_size=5), store)


def test_it_is_trained_by_the_command_and_evaluating_it_says_what_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--data", "synthetic:halfcheetah", "--env-id", "HalfCheetah-v5", "--threads", "1"]
    run = ["--output", str(tmp_path), "--name", "one", "--steps", "3"]
    assert main(["train", "dynamics_ensemble/debug", *shared, *run]) == 0
    assert "to score it" not in capsys.readouterr().out
    assert (tmp_path / "one" / "checkpoints" / "best").is_dir()
    assert main(["evaluate", str(tmp_path / "one")]) == 2
    assert "predicts states and does not act" in capsys.readouterr().err
