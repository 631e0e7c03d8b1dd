"""Walks as datasets: equal for equal seeds, and read back as they were walked."""

from __future__ import annotations

import numpy as np

from trajlm.collect.walks import episodes, write_walks
from trajlm.data.load import load_dataset

ENV_ID = "trajlm/KeyToDoor-v0"


def walk(generator, observation):
    return int(generator.integers(4))


def test_an_episode_depends_on_its_number_alone():
    few = [t for t, _ in episodes(walk, env_id=ENV_ID, count=2)]
    many = [t for t, _ in episodes(walk, env_id=ENV_ID, count=4)]
    later = [t for t, _ in episodes(walk, env_id=ENV_ID, count=2, seed=1)]
    for one, other in ((few[1], many[1]), (few[1], later[0])):
        assert np.array_equal(one.columns["observations"], other.columns["observations"])
        assert np.array_equal(one.columns["actions"], other.columns["actions"])
    assert not np.array_equal(few[0].columns["actions"], few[1].columns["actions"])


def test_infos_are_those_of_the_observations():
    for trajectory, infos in episodes(walk, env_id=ENV_ID, count=3):
        assert len(infos) == len(trajectory.columns["observations"]) == 25
        assert trajectory.episode_return == float(infos[-1]["key"] and infos[-1]["door"])


def test_a_dataset_is_read_back(tmp_path):
    made = {"env_id": ENV_ID, "behaviour": "actions drawn evenly", "dataset_id": "trajlm/x-v0"}
    hashes = []
    for root in (tmp_path / "one", tmp_path / "other"):
        folder = write_walks(walk, count=3, root=root, **made)
        store = load_dataset(str(folder))
        hashes.append(store.content_hash)
    assert (len(store), store.num_steps, store.env_id) == (3, 72, ENV_ID)
    assert store.terminated.all() and not store.truncated.any()
    first, _ = next(episodes(walk, env_id=ENV_ID, count=1))
    assert np.array_equal(store.rows("actions", 0), first.columns["actions"])
    assert hashes[0] == hashes[1]
