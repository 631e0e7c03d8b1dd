"""Key-to-Door and shortest paths from data to picture, at debug size, and their numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trajlm.reproduce import key_to_door_critic, shortest_path_walks
from trajlm.reproduce.experiments import key_to_door, shortest_path
from trajlm.reproduce.reproduce import reproduce


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors") / "run"
    return reproduce("key-to-door", scale="debug", output=folder)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph") / "run"
    return reproduce("shortest-path", scale="debug", output=folder)


def test_key_to_door_runs_whole(doors):
    results, folder = doors
    assert results["held"] == "untested"
    methods = [row["recipe"] for row in results["rows"]]
    assert methods == [*key_to_door.EXPERIMENT.algorithms, "random"]
    critic = results["picture"]["critic"]
    assert len(critic["attention"]["shares"]) == 24
    assert sum(critic["attention"]["shares"]) == pytest.approx(1.0, abs=0.01)
    for example in critic["examples"]:
        assert all(0.0 <= value <= 1.0 for value in example["foretold"])
    assert len(critic["examples"]) == 3
    for name in ("picture.png", "picture.svg"):
        assert 10_000 < (folder / name).stat().st_size < 500_000


def test_shortest_path_runs_whole(graph):
    results, folder = graph
    assert results["held"] == "untested"
    for row in results["rows"]:
        assert sum(row["histogram"]) == pytest.approx(100.0)
    shortest = results["rows"][-1]
    assert (shortest["optimal"], shortest["arrived"]) == (100.0, 100.0)
    for name in ("picture.png", "picture.svg"):
        assert 10_000 < (folder / name).stat().st_size < 500_000


def test_success_is_a_mean_over_seeds():
    row = key_to_door.success_row(
        "decision_transformer/key-to-door", 1000, [[1, 0, 0, 1], [1, 1, 1, 1]]
    )
    assert (row["success"], row["seeds"], row["published"]) == (75.0, [50.0, 100.0], 71.8)
    assert row["interval"][0] >= 50.0 and row["interval"][1] <= 100.0


def test_events_are_the_steps_that_brought_them_about():
    infos = [{"key": step >= 3, "door": False} for step in range(25)]
    assert key_to_door_critic.event(infos, "key") == 2
    assert key_to_door_critic.event(infos, "door") == -1


def test_a_summary_counts_every_start_alike():
    # Start 1 arrives by its shortest path in three of three episodes, start 2 never.
    row = shortest_path.summary("x", [[(1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 0, 3)]])
    assert (row["optimal"], row["arrived"]) == (50.0, 75.0)
    assert row["histogram"] == [0.0, 75.0] + [0.0] * 8 + [25.0]


def test_a_walk_holds_what_stands_in_it_in_order():
    assert shortest_path_walks.holds((1, 2, 3, 4), (2, 3))
    assert not shortest_path_walks.holds((1, 2, 3, 4), (2, 4))
    assert not shortest_path_walks.holds((1, 2), (1, 2, 3))


def test_the_walks_follow_edges(graph):
    from trajlm.data.load import load_dataset
    from trajlm.envs.shortest_path import edges

    _, folder = graph
    store = load_dataset(str(folder / "data" / "trajlm/shortest-path/walks-v0"))
    for episode in range(len(store)):
        nodes = store.rows("observations", episode)
        assert edges()[nodes[:-1], nodes[1:]].all()
        assert np.array_equal(store.rows("actions", episode), nodes[1:])
