"""Behaviour cloning, its frames, and the share of the data that %BC keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trajlm.algorithms.behavior_cloning.config import Config
from trajlm.algorithms.behavior_cloning.model import Model
from trajlm.algorithms.percent_behavior_cloning.config import Config as PercentConfig
from trajlm.algorithms.percent_behavior_cloning.model import Model as PercentModel
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Step
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.sequence.loader import Gatherer
from trajlm.sequence.windows import Windows

ACTION = Box(shape=(1,), low=(-1.0,), high=(1.0,))


def store_of(lengths: list[int], returns: list[float] | None = None) -> TrajectoryStore:
    generator = np.random.default_rng(0)
    episodes = []
    for number, steps in enumerate(lengths):
        rewards = np.zeros(steps)
        rewards[-1] = number if returns is None else returns[number]
        columns = {
            "observations": generator.normal(2.0, 3.0, (steps + 1, 2)),
            "actions": generator.uniform(-1, 1, (steps, 1)),
            "rewards": rewards,
        }
        episodes.append(Trajectory(columns=columns, terminated=True, truncated=False))
    return TrajectoryStore.from_trajectories(
        episodes, observation_space=Box(shape=(2,)), action_space=ACTION
    )


def built(frames: int, store: TrajectoryStore) -> Model:
    config = Config(frames=frames, width=16, dropout=0.0)
    torch.manual_seed(0)
    return Model.build(config, store.spec, Model.prepare(config, store).fitted).eval()


def act_along(model: Model, observations: np.ndarray) -> np.ndarray:
    """Actions (T, 1) for the observations (T, 2) of one episode, step by step."""
    policy = model.policy()
    carry, actions = policy.initial(1), []
    for number, observation in enumerate(observations):
        carry, action = policy.act(carry, Step.of(observation, is_first=number == 0))
        actions.append(action[0])
    return np.stack(actions)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_every_step_is_learned_from_once_with_the_history_it_is_acted_with(
    frames: int, steps: int
) -> None:
    """All windows of an episode give the mean error of the actions taken along it."""
    store = store_of([steps])
    model = built(frames, store)
    gatherer = Gatherer(store, Model.windows(model.config, store.spec))
    everything = gatherer.batch(Windows(np.zeros(steps, np.int64), np.arange(steps)))
    acted = act_along(model, store.rows("observations", 0)[:steps])
    error = np.square(acted - store.rows("actions", 0)).mean()
    with torch.no_grad():
        assert model(everything).value.item() == pytest.approx(error, rel=1e-4)


def test_an_episode_starts_with_an_empty_history() -> None:
    store = store_of([6])
    model, rows = built(3, store), store.rows("observations", 0)
    policy = model.policy()
    carry = policy.initial(2)
    for number in range(4):
        both = np.stack([rows[number], rows[number]])
        first = np.array([number == 0, number in (0, 3)])
        step = Step(
            observation=both,
            reward=np.zeros(2),
            terminated=np.zeros(2, bool),
            truncated=np.zeros(2, bool),
            is_first=first,
            seed=np.arange(2),
        )
        carry, actions = policy.act(carry, step)
    assert actions[1] == pytest.approx(act_along(model, rows[3:4])[0], abs=1e-6)
    assert actions[0] != pytest.approx(actions[1], abs=1e-6)
    kept = carry.select(np.array([1]))
    assert kept.steps.tolist() == [1]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(-5, 5)), min_size=1, max_size=8),
    st.floats(0.01, 1.0),
)
def test_the_best_episodes_fill_at_most_their_share(
    episodes: list[tuple[int, int]], fraction: float
) -> None:
    lengths, returns = [n for n, _ in episodes], [float(r) for _, r in episodes]
    store = store_of(lengths, returns)
    best = store.best(fraction)
    assert len(best) == 1 or best.num_steps <= fraction * store.num_steps
    left_out = np.setdiff1d(np.arange(len(store)), best.index[:, 1])
    if len(left_out):
        assert store.returns[left_out].max() <= best.returns.min()
        following = left_out[np.argmax(store.returns[left_out])]
        tied = store.returns[left_out] == store.returns[following]
        shortest = store.lengths[left_out[tied]].min()
        longest = store.lengths[left_out[tied]].max()
        assert best.num_steps + longest > int(fraction * store.num_steps) or shortest < longest


def test_percent_trains_on_the_best_and_normalises_by_all() -> None:
    store = store_of([10] * 10)
    prepared = PercentModel.prepare(PercentConfig(fraction=0.2), store)
    assert prepared.store.returns.tolist() == [8.0, 9.0]
    whole = Model.prepare(Config(), store)
    assert np.array_equal(prepared.fitted["observations/mean"], whole.fitted["observations/mean"])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="fraction"):
        PercentConfig(fraction=0.0)
    with pytest.raises(UsageError, match="frames"):
        Config(frames=0)
    with pytest.raises(UsageError, match="unknown option 'target_return'"):
        built(1, store_of([3])).policy(target_return=5)
