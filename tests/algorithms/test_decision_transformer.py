"""The Decision Transformer's loss, preparation and acting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trajlm.algorithms.decision_transformer.config import Config
from trajlm.algorithms.decision_transformer.model import Model
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.core.spec import Box, DataSpec, DictSpace
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.sequence.loader import Loader

ACTION = Box(shape=(2,), low=(-1.0, 0.0), high=(1.0, 10.0))
CONFIG = Config(context_length=4, width=16, num_layers=2, num_heads=2, return_scale=10.0)


@pytest.fixture(scope="module")
def store() -> TrajectoryStore:
    generator = np.random.default_rng(0)
    episodes = [
        Trajectory(
            columns={
                "observations": generator.normal(3.0, 2.0, (steps + 1, 3)),
                "actions": generator.uniform([-1.0, 0.0], [1.0, 10.0], (steps, 2)),
                "rewards": generator.normal(size=steps),
            },
            terminated=True,
            truncated=False,
        )
        for steps in (7, 12, 3)
    ]
    return TrajectoryStore.from_trajectories(
        episodes, observation_space=Box(shape=(3,)), action_space=ACTION
    )


@pytest.fixture(scope="module")
def model(store: TrajectoryStore) -> Model:
    torch.manual_seed(0)
    prepared = Model.prepare(CONFIG, store)
    model = Model.build(CONFIG, prepared.store.spec, prepared.fitted)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_prepare_fits_statistics_and_adds_returns_to_go(store: TrajectoryStore) -> None:
    prepared = Model.prepare(CONFIG, store)
    rewards = store.rows("rewards", 1).astype(np.float64)
    expected = [rewards[t:].sum() for t in range(len(rewards))]
    assert np.allclose(prepared.store.rows("returns_to_go", 1), expected, atol=1e-5)
    rows = np.concatenate([store.rows("observations", e) for e in range(len(store))])
    assert np.allclose(prepared.fitted["observations/mean"], rows.mean(0), atol=1e-5)
    assert np.allclose(prepared.fitted["observations/std"], rows.std(0), atol=1e-5)


def test_statistics_are_buffers_and_travel_with_the_weights(
    model: Model, store: TrajectoryStore
) -> None:
    fresh = Model.build(CONFIG, store.spec, {})
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(
        fresh.embed_observation.normalizer.mean, model.embed_observation.normalizer.mean
    )
    assert fresh.return_scale.item() == 10.0


def test_a_constant_dimension_has_unit_deviation() -> None:
    fitted = {"observations/mean": np.array([5.0, 1.0]), "observations/std": np.array([0.0, 2.0])}
    spec = DataSpec(observation=Box(shape=(2,)), action=ACTION, horizon=3)
    encoder = Model.build(CONFIG, spec, fitted).embed_observation
    assert encoder.normalizer(torch.tensor([6.0, 3.0])).tolist() == pytest.approx([1.0, 1.0])


def test_loss_is_the_masked_mean_squared_error_in_unit_actions(
    model: Model, store: TrajectoryStore
) -> None:
    prepared = Model.prepare(CONFIG, store)
    batch = Loader(prepared.store, Model.windows(CONFIG, store.spec), batch_size=32, seed=0).batch(
        0
    )
    assert not batch.mask.all()
    scaled = batch.actions.clone()
    scaled[..., 1] = scaled[..., 1] / 5.0 - 1.0
    with torch.no_grad():
        predicted = model.head(
            model.hidden(
                returns_to_go=batch.columns["returns_to_go"],
                observations=batch.observations,
                actions=batch.actions,
                timesteps=batch.timesteps,
            )
        )
        loss = model(batch)
    expected = (predicted - scaled)[batch.mask].square().mean()
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.metrics["loss"].item() == loss.value.item()


def test_it_learns_a_rule(store: TrajectoryStore) -> None:
    """Thirty updates on one batch bring the loss well down, through the real loss."""
    torch.manual_seed(0)
    prepared = Model.prepare(CONFIG, store)
    model = Model.build(CONFIG, prepared.store.spec, prepared.fitted)
    batch = Loader(prepared.store, Model.windows(CONFIG, store.spec), batch_size=8, seed=0).batch(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = model(batch).value.item()
    for _ in range(60):
        loss = model(batch).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.eval()(batch).value.item() < 0.5 * first


def drive(
    model: Model,
    observations: np.ndarray,
    rewards: np.ndarray,
    *,
    target: np.ndarray,
    **options: int,
) -> np.ndarray:
    """Actions (T, N, 2) for given observations (T, N, 3) and rewards (T, N)."""
    policy = model.policy(**options)
    carry = policy.initial(len(target), Condition(target_return=target))
    actions = []
    for step in range(len(observations)):
        seen = Step(
            observation=observations[step],
            reward=rewards[step],
            terminated=np.zeros(len(target), bool),
            truncated=np.zeros(len(target), bool),
            is_first=np.full(len(target), step == 0),
            seed=np.arange(len(target)),
        )
        carry, action = policy.act(carry, seen)
        actions.append(action)
    return np.stack(actions)


def inputs(steps: int, slots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    observations = generator.normal(3.0, 2.0, (steps, slots, 3)).astype(np.float32)
    return observations, generator.normal(size=(steps, slots)), np.linspace(-5.0, 20.0, slots)


def test_acting_equals_the_training_forward(model: Model) -> None:
    """Step by step with a moving window = one forward over that window, targets falling."""
    observations, rewards, target = inputs(9, 1)
    actions = drive(model, observations, rewards, target=target)
    remaining = target[0] - np.concatenate([[0.0], np.cumsum(rewards[1:, 0])])
    unit = actions.copy()
    unit[..., 1] = unit[..., 1] / 5.0 - 1.0
    for step in range(9):
        window = slice(max(0, step - 3), step + 1)
        with torch.no_grad():
            hidden = model.hidden(
                returns_to_go=torch.tensor(remaining[window], dtype=torch.float32)[None],
                observations=torch.tensor(observations[window, 0])[None],
                actions=torch.tensor(actions[window, 0], dtype=torch.float32)[None],
                timesteps=torch.arange(9)[window][None],
            )
            predicted = model.head(hidden)[0, -1]
        assert predicted.tolist() == pytest.approx(unit[step, 0].tolist(), abs=1e-5)


def test_batched_equals_single(model: Model) -> None:
    observations, rewards, target = inputs(9, 5)
    together = drive(model, observations, rewards, target=target)
    for slot in range(5):
        one = slice(slot, slot + 1)
        alone = drive(model, observations[:, one], rewards[:, one], target=target[one])
        assert np.abs(together[:, one] - alone).max() < 1e-5


def test_slots_restart_and_are_selected_independently(model: Model) -> None:
    """A slot that starts afresh among old ones acts as in an empty memory, also after select."""
    observations, rewards, target = inputs(6, 3)
    policy = model.policy()
    carry = policy.initial(3, Condition(target_return=target))
    for step in range(6):
        seen = Step(
            observation=observations[step],
            reward=np.where([True, step != 4, True], rewards[step], 0.0),
            terminated=np.zeros(3, bool),
            truncated=np.zeros(3, bool),
            is_first=np.array([step == 0, step in (0, 4), step == 0]),
            seed=np.arange(3),
        )
        if step == 5:
            carry = carry.select(np.array([1, 0]))
            seen = seen.select(np.array([1, 0]))
        carry, action = policy.act(carry, seen)
    alone = drive(model, observations[4:, 1:2], rewards[4:, 1:2], target=target[1:2])
    assert np.abs(action[0] - alone[1, 0]).max() < 1e-5


def test_actions_keep_their_bounds_and_type(model: Model) -> None:
    observations, rewards, target = inputs(3, 4)
    actions = drive(model, observations * 100, rewards, target=target)
    assert actions.dtype == np.float32 and actions.shape == (3, 4, 2)
    assert (actions >= [-1.0, 0.0]).all() and (actions <= [1.0, 10.0]).all()


def test_the_carry_is_a_value(model: Model) -> None:
    """Acting twice from one carry gives the same twice: nothing hidden is changed."""
    policy = model.policy(target_return=3)
    step = Step.of(np.ones(3, np.float32), is_first=True)
    carry = policy.initial(1)
    first, action = policy.act(carry, step)
    again, same = policy.act(carry, step)
    assert np.array_equal(action, same) and torch.equal(first.remaining, again.remaining)
    assert carry.steps.item() == 0 and first.steps.item() == 1


def test_targets_come_from_condition_then_config_then_data(model: Model) -> None:
    asked = np.array([1.0, 2.0])
    assert model.policy().initial(2, Condition(target_return=asked)).target.tolist() == [1.0, 2.0]
    assert model.policy(target_return=7).initial(2).target.tolist() == [7.0, 7.0]
    assert model.policy().initial(1).target.item() == pytest.approx(model.spec.return_max)
    with pytest.raises(UsageError, match="several"):
        model.policy(target_return=(1.0, 2.0)).initial(2)
    with pytest.raises(UsageError, match="one a slot"):
        model.policy().initial(2, Condition(target_return=np.array([np.nan, 1.0])))


def test_targets_by_name_come_from_the_data(model: Model, store: TrajectoryStore) -> None:
    assert model.policy(target_return="max").initial(1).target.item() == pytest.approx(
        store.returns.max()
    )
    median = model.policy(target_return="q50").initial(1).target.item()
    assert median == pytest.approx(np.median(store.returns))
    with pytest.raises(UsageError, match="'best' is not a number"):
        model.policy(target_return="best")


@pytest.mark.parametrize("delayed", [False, True])
def test_the_return_asked_for_falls_unless_the_reward_is_delayed(
    model: Model, delayed: bool
) -> None:
    late = Model.build(CONFIG, replace(model.spec, delayed_reward=delayed), {}).eval()
    policy = late.policy(target_return=10.0)
    carry, _ = policy.act(policy.initial(1), Step.of(np.ones(3, np.float32), is_first=True))
    carry, _ = policy.act(carry, Step.of(np.ones(3, np.float32), reward=4.0))
    assert carry.remaining[0, -2:].tolist() == ([10.0, 10.0] if delayed else [10.0, 6.0])


def test_bf16_acting_is_close(model: Model) -> None:
    observations, rewards, target = inputs(5, 2)
    full = drive(model, observations, rewards, target=target)
    policy_actions = drive(model, observations, rewards, target=target, precision="bf16")  # type: ignore[arg-type]
    assert 0 < np.abs(full - policy_actions).max() < 1.0


def test_bf16_acts_where_episodes_begin_apart(model: Model) -> None:
    """A short history beside a long one is padded; the padding sees nothing."""
    policy = model.policy(precision="bf16", target_return=10.0)
    carry = policy.initial(2)
    for number in range(3):
        seen = Step(
            observation=np.ones((2, 3), np.float32),
            reward=np.zeros(2),
            terminated=np.zeros(2, bool),
            truncated=np.zeros(2, bool),
            is_first=np.array([number == 0, number != 1]),
            seed=np.arange(2),
        )
        carry, action = policy.act(carry, seen)
        assert np.isfinite(action).all()


def test_steps_beyond_the_table_use_its_last_row(model: Model) -> None:
    rows = model.embed_timestep.num_embeddings
    observations, rewards, target = inputs(rows + 3, 1)
    assert np.isfinite(drive(model, observations, rewards, target=target)).all()


def test_dict_observations_are_summed() -> None:
    space = DictSpace(subspaces={"body": Box(shape=(3,)), "goal": Box(shape=(2,))})
    spec = DataSpec(observation=space, action=ACTION, horizon=5)
    torch.manual_seed(0)
    model = Model.build(CONFIG, spec, {}).eval()
    policy = model.policy(target_return=1.0)
    observation = {"body": np.ones((1, 3)), "goal": np.zeros((1, 2))}
    step = Step.of(np.zeros(1), is_first=True)
    _, action = policy.act(policy.initial(1), Step(**{**vars(step), "observation": observation}))
    other = {"body": np.ones((1, 3)), "goal": np.ones((1, 2))}
    _, changed = policy.act(policy.initial(1), Step(**{**vars(step), "observation": other}))
    assert action.shape == (1, 2) and not np.allclose(action, changed)


def test_what_does_not_fit_is_refused() -> None:
    spec = DataSpec(observation=Box(shape=(3,)), action=ACTION, horizon=1000)
    with pytest.raises(UsageError, match="max_timestep: 24 is less"):
        Model.build(Config(max_timestep=24), spec, {})
    named = DictSpace(subspaces={"arm": ACTION})
    with pytest.raises(UsageError, match="DictSpace has no head"):
        Model.build(CONFIG, DataSpec(observation=Box(shape=(3,)), action=named, horizon=5), {})
    with pytest.raises(UsageError, match="context_length"):
        Config(context_length=0)
    with pytest.raises(UsageError, match="2\\^31"):
        Config(width=16_384, num_layers=16_384)
