"""Rewards moved to the end and rescaled: returns stay what they were, in the environment's units."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.columns import discounted_sum_to_go
from trajlm.data.relabel import with_reward
from trajlm.data.store import TrajectoryStore

episodes_of_rewards = st.lists(
    st.lists(st.integers(-100, 100), min_size=1, max_size=8), min_size=1, max_size=4
)


def store_of(episodes: list[list[int]], *, factor: float = 1.0) -> TrajectoryStore:
    return TrajectoryStore.from_trajectories(
        [
            Trajectory(
                columns={
                    "observations": np.zeros((len(rewards) + 1, 1), np.float32),
                    "actions": np.zeros((len(rewards), 1), np.float32),
                    "rewards": np.array(rewards, np.float32) * np.float32(factor),
                },
                terminated=True,
                truncated=False,
            )
            for rewards in episodes
        ],
        observation_space=Box(shape=(1,)),
        action_space=Box(shape=(1,), low=(-1.0,), high=(1.0,)),
    )


@given(episodes_of_rewards)
def test_a_delayed_reward_keeps_returns_and_holds_the_return_to_go(
    episodes: list[list[int]],
) -> None:
    store = store_of(episodes)
    late = with_reward(store, reward="delayed")
    assert np.array_equal(late.returns, store.returns)
    for episode, rewards in enumerate(episodes):
        found = late.rows("rewards", episode)
        assert not found[:-1].any()
        to_go = discounted_sum_to_go(found, np.array([0, len(found)]))
        assert to_go.tolist() == [sum(rewards)] * len(rewards)
    assert late.spec.delayed_reward and not store.spec.delayed_reward
    assert late.content_hash != store.content_hash


@given(episodes_of_rewards, st.sampled_from([0.001, 0.5, 10.0]))
def test_a_scaled_reward_comes_back_in_the_environments_units(
    episodes: list[list[int]], factor: float
) -> None:
    restored = with_reward(store_of(episodes, factor=factor), scale=factor)
    assert np.allclose(restored.returns, store_of(episodes).returns, rtol=1e-5, atol=1e-3)


def test_the_recorded_reward_is_the_same_store() -> None:
    store = store_of([[1, 2]])
    assert with_reward(store) is store
