"""Recorded ways through the four rooms: a function of the seed, without the ways that are left out."""

from __future__ import annotations

import numpy as np

from trajlm.collect.four_rooms import UNSHOWN, recorded_ways
from trajlm.data.doctor import check
from trajlm.data.load import load_dataset
from trajlm.data.sources.minari_writer import write
from trajlm.envs.four_rooms import ENV_ID, LONGEST_STEP, is_free, room_of


def test_recordings_are_a_function_of_the_seed():
    one, same, other = (recorded_ways(12, seed=seed) for seed in (3, 3, 4))
    assert one.content_hash == same.content_hash != other.content_hash
    longer = recorded_ways(20, seed=3)
    for number in range(12):
        np.testing.assert_array_equal(one.rows("actions", number), longer.rows("actions", number))


def test_no_recording_shows_a_way_between_the_rooms_left_out_and_all_others_occur():
    store = recorded_ways(400)
    visits = [
        [room_of(place) for place in store.rows("observations", number)]
        for number in range(len(store))
    ]
    for first, last in UNSHOWN:
        for rooms in visits:
            assert not (first in rooms and last in rooms[rooms.index(first) :])
    shown = {(rooms[0], rooms[-1]) for rooms in visits}
    assert shown == {(a, b) for a in range(4) for b in range(4)} - set(UNSHOWN)
    everything = recorded_ways(100, unshown=())
    ways = [everything.rows("observations", number) for number in range(len(everything))]
    ends = [(way[0], way[-1]) for way in ways]
    assert {(room_of(a), room_of(b)) for a, b in ends} & set(UNSHOWN)


def test_recordings_are_walks_on_the_floor_without_rewards_or_terminals():
    store = recorded_ways(30)
    assert store.env_id == ENV_ID and not store.terminated.any() and store.truncated.all()
    assert (store.returns == 0).all()
    assert [finding.rule for finding in check(store)] == ["D008"]  # rewards never change
    for number in range(len(store)):
        places, actions = store.rows("observations", number), store.rows("actions", number)
        assert all(is_free(tuple(place)) for place in places.astype(float))
        assert np.abs(actions).max() <= LONGEST_STEP
        moved = np.diff(places, axis=0)
        assert (np.abs(moved) <= np.abs(actions) + 1e-5).all()
    calm = recorded_ways(30, noise=0.0)
    assert calm.num_steps < store.num_steps


def test_recordings_survive_the_way_through_a_file(tmp_path):
    store = recorded_ways(5)
    folder = write(store, dataset_id="trajlm/four-rooms/noisy-planner-v0", root=tmp_path)
    found = load_dataset(str(folder))
    assert found.env_id == ENV_ID and found.observation_space == store.observation_space
    for number in range(5):
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(found.rows(name, number), store.rows(name, number))
