"""Rewards moved to the end and rescaled: returns stay what they were, in the environment's units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trajlm.core.errors import DataError
from trajlm.core.spec import Box, leaves
from trajlm.core.trajectory import Trajectory
from trajlm.data.columns import discounted_sum_to_go
from trajlm.data.relabel import with_hindsight_goals, with_reward
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


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 3), st.integers(1, 3))
def test_hindsight_goals_are_what_follows_in_the_episode(
    lengths: list[int], seed: int, copies: int
) -> None:
    """Observations number the rows of the dataset, so a goal says which row it was taken from."""
    counted = np.cumsum([0, *(length + 1 for length in lengths)])
    episodes = [
        Trajectory(
            columns={
                "observations": np.arange(start, start + length + 1, dtype=np.float32)[:, None],
                "actions": np.zeros((length, 1), np.float32),
                "rewards": np.zeros(length, np.float32),
            },
            terminated=False,
            truncated=True,
        )
        for start, length in zip(counted, lengths, strict=False)
    ]
    plain = TrajectoryStore.from_trajectories(
        episodes, observation_space=Box(shape=(1,)), action_space=Box(shape=(1,))
    )
    store = with_hindsight_goals(plain, env_id="World-v0", copies=copies, seed=seed)
    assert len(store) == copies * len(plain)
    assert set(leaves(store.observation_space, "observations")) < set(store.column_names)
    assert store.spec.env_id == "World-v0" and store.content_hash != plain.content_hash
    for number in range(len(store)):
        shown = store.rows("observations/observation", number)[:, 0]
        goals = store.rows("observations/desired_goal", number)[:, 0]
        np.testing.assert_array_equal(shown, plain.rows("observations", number % len(plain))[:, 0])
        assert (goals[:-1] > shown[:-1]).all() and (goals <= shown[-1]).all()
    again = with_hindsight_goals(plain, env_id="World-v0", copies=copies, seed=seed)
    for one, other in zip(store.segments, again.segments, strict=True):
        for name, column in one.columns.items():
            np.testing.assert_array_equal(column, other.columns[name])


def test_hindsight_goals_reach_every_later_step_and_differ_between_copies_and_seeds() -> None:
    rows = np.arange(9, dtype=np.float32)[:, None]
    episode = Trajectory(
        columns={"observations": rows, "actions": rows[1:], "rewards": np.zeros(8, np.float32)},
        terminated=False,
        truncated=True,
    )
    plain = TrajectoryStore.from_trajectories(
        [episode], observation_space=Box(shape=(1,)), action_space=Box(shape=(1,))
    )
    store = with_hindsight_goals(plain, copies=200)
    goals = np.array([store.rows("observations/desired_goal", n)[0, 0] for n in range(200)])
    counts = np.bincount(goals.astype(int), minlength=9)
    assert counts[0] == 0 and (counts[1:] > 10).all()
    other = with_hindsight_goals(plain, copies=200, seed=1)
    assert any(
        (
            store.rows("observations/desired_goal", n) != other.rows("observations/desired_goal", n)
        ).any()
        for n in range(5)
    )
    with pytest.raises(DataError, match="Dict space already"):
        with_hindsight_goals(store)
