"""The store and its computed columns, against brute force on random episodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.core.errors import DataError
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.columns import discounted_sum_to_go, timesteps, value_to_go
from trajlm.data.store import TrajectoryStore

SPACES = {"observation_space": Box(shape=(2,)), "action_space": Box(shape=(1,))}
rewards_of_episodes = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=0, max_size=12), min_size=1, max_size=6
)


def trajectory(
    steps: int, *, base: float = 0.0, last: bool = True, unfinished: bool = False
) -> Trajectory:
    rows = np.arange(steps + last, dtype=np.float32) + base
    return Trajectory(
        columns={
            "observations": np.stack([rows, -rows], axis=1),
            "actions": rows[:steps, None] * 0.5,
            "rewards": rows[:steps] + 1.0,
        },
        terminated=not unfinished,
        truncated=False,
        unfinished=unfinished,
        seed=steps,
    )


def store_of(lengths: list[int], **keywords: bool) -> TrajectoryStore:
    return TrajectoryStore.from_trajectories(
        [trajectory(n, base=100.0 * i, **keywords) for i, n in enumerate(lengths)], **SPACES
    )


@settings(deadline=None)
@given(rewards_of_episodes, st.sampled_from([1.0, 0.99, 0.5, 0.0]))
def test_sums_to_go_equal_the_formula(episodes: list[list[float]], discount: float) -> None:
    flat = np.array([r for episode in episodes for r in episode], np.float32)
    offsets = np.cumsum([0] + [len(episode) for episode in episodes])
    sums = discounted_sum_to_go(flat, offsets, discount=discount)
    values = value_to_go(flat, offsets, discount=discount)
    assert sums.dtype == np.float64
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        for t in range(start, stop):
            terms = [discount ** (k - t) * float(flat[k]) for k in range(t, stop)]
            scale = 1.0 + sum(map(abs, terms))
            assert abs(sums[t] - sum(terms)) <= 1e-9 * scale
            later = [discount ** (k - t - 1) * float(flat[k]) for k in range(t + 1, stop)]
            assert abs(values[t] - sum(later)) <= 1e-9 * (1.0 + sum(map(abs, later)))


def test_huge_rewards_do_not_leak_into_the_next_episode() -> None:
    rewards = np.array([1e30, 1.0, 1.0, 2.0, 3.0], np.float32)
    sums = discounted_sum_to_go(rewards, np.array([0, 1, 5]))
    np.testing.assert_array_equal(sums[1:], [7.0, 6.0, 5.0, 3.0])


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_timesteps_count_from_each_start(lengths: list[int]) -> None:
    found = timesteps(np.cumsum([0, *lengths]))
    assert found.tolist() == [t for n in lengths for t in range(n)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), max_size=2),
    st.booleans(),
    st.data(),
)
def test_extend_select_and_gather_equal_a_list_of_episodes(
    first: list[int], batches: list[list[int]], last: bool, data: st.DataObject
) -> None:
    episodes = [trajectory(n, base=10.0 * n, last=last) for n in first]
    store = TrajectoryStore.from_trajectories(episodes, **SPACES)
    hashes = {store.content_hash}
    for batch in batches:
        new = [trajectory(n, base=-10.0 * n, last=last) for n in batch]
        store, episodes = store.extend(new), episodes + new
        hashes.add(store.content_hash)
    assert store.version == len(batches)
    assert len(hashes) == len(batches) + 1
    chosen = data.draw(st.lists(st.integers(0, len(episodes) - 1), min_size=1, max_size=6))
    view = store.select(np.array(chosen))
    assert view.lengths.tolist() == [len(episodes[i]) for i in chosen]
    assert view.seeds.tolist() == [episodes[i].seed for i in chosen]
    np.testing.assert_allclose(view.returns, [episodes[i].episode_return for i in chosen])
    for name in ("observations", "actions", "rewards"):
        starts = view.first_rows(name)
        for position, number in enumerate(chosen):
            expected = episodes[number].columns[name]
            np.testing.assert_array_equal(view.rows(name, position), expected)
            rows = starts[position] + np.arange(len(expected))
            np.testing.assert_array_equal(view.gather(name, rows), expected)
            np.testing.assert_array_equal(view.gather(name, rows[:, None]), expected[:, None])


def test_an_episode_comes_out_as_it_went_in() -> None:
    given_episode = trajectory(5)
    found = TrajectoryStore.from_trajectories([given_episode], **SPACES).episode(0)
    assert (found.terminated, found.truncated, found.seed) == (True, False, 5)
    for name, column in given_episode.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)


def test_unfinished_episodes_are_left_out_of_returns() -> None:
    store = TrajectoryStore.from_trajectories(
        [trajectory(3), trajectory(4, unfinished=True), trajectory(5)], **SPACES
    )
    assert store.unfinished.tolist() == [False, True, False]
    assert store.finished.lengths.tolist() == [3, 5]
    assert store.spec.return_min == 6.0
    assert store.spec.return_max == 15.0


def test_a_store_without_a_finished_episode_has_no_spec() -> None:
    store = TrajectoryStore.from_trajectories([trajectory(4, unfinished=True)], **SPACES)
    with pytest.raises(DataError, match="no finished episode"):
        _ = store.spec


def test_an_empty_episode_has_return_zero() -> None:
    store = store_of([2, 0, 3, 0])
    assert store.returns.tolist() == [3.0, 0.0, 606.0, 0.0]


def test_one_last_observation_missing_drops_all() -> None:
    store = TrajectoryStore.from_trajectories([trajectory(2), trajectory(3, last=False)], **SPACES)
    assert not store.has_last_observation
    assert len(store.segments[0].columns["observations"]) == 5


def test_a_column_added_to_every_segment_is_gathered() -> None:
    store = store_of([2, 3]).extend([trajectory(4)])
    store = store.with_column("k", [np.arange(5), np.arange(5, 9)])
    assert store.gather("k", np.array([0, 4, 5, 8])).tolist() == [0, 4, 5, 8]
    with pytest.raises(DataError, match="'k' has 4 rows"):
        store.with_column("k", [np.arange(4), np.arange(5, 9)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((3, 2), np.float32)}, "'actions' holds"),
        ({"actions": np.zeros((3, 1), np.int64)}, "'actions' holds"),
        ({"extra": np.zeros(3)}, "columns"),
        ({"observations": np.zeros((3, 2), np.float32)}, "last observation"),
    ],
)
def test_extend_refuses_what_does_not_fit(change: dict[str, np.ndarray], message: str) -> None:
    columns = {**trajectory(3).columns, **change}
    other = Trajectory(columns=columns, terminated=True, truncated=False)
    with pytest.raises(DataError, match=message):
        store_of([2]).extend([other])


def test_columns_keep_their_kind() -> None:
    columns = {
        "observations": np.zeros((3, 4, 4), np.uint8),
        "actions": np.zeros(2, np.int64),
        "rewards": np.zeros(2, np.float64),
    }
    store = TrajectoryStore.from_trajectories(
        [Trajectory(columns=columns, terminated=True, truncated=False)], **SPACES
    )
    kinds = {name: str(column.dtype) for name, column in store.segments[0].columns.items()}
    assert kinds == {"observations": "uint8", "actions": "int64", "rewards": "float32"}
