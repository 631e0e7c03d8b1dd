"""Four rooms from recordings to picture, at debug size, and what it is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trajlm.core.errors import UsageError
from trajlm.data.load import load_dataset
from trajlm.envs.four_rooms import ENV_ID, FourRooms, room_of
from trajlm.evaluation.scores import wilson_interval
from trajlm.reproduce import four_rooms_ways as ways
from trajlm.reproduce.experiments import four_rooms
from trajlm.reproduce.reproduce import reproduce


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms") / "run"
    return reproduce("four-rooms", scale="debug", output=folder)


def test_it_runs_whole(found):
    results, folder = found
    assert results["held"] == "untested"
    methods = [*four_rooms.EXPERIMENT.algorithms, "random", "oracle"]
    pairs = (four_rooms.RANDOM_PAIRS, four_rooms.SHOWN_PAIRS, four_rooms.UNSHOWN_PAIRS)
    assert [(row["method"], row["pairs"]) for row in results["rows"]] == [
        (method, each) for method in methods for each in pairs
    ]
    for row in results["rows"]:
        low, high = row["interval"]
        assert 0.0 <= low <= row["success"] <= high <= 1.0
    shown = sum(ways.shown_among(range(1000, 1004)))
    assert [row["episodes"] for row in results["rows"]] == [4, shown, 4] * 4
    assert [row["success"] for row in results["rows"][-3:]] == [1.0, 1.0, 1.0]
    for name in ("picture.png", "picture.svg"):
        assert 10_000 < (folder / name).stat().st_size < 500_000


def test_the_ways_drawn_begin_and_end_where_they_should(found):
    drawn = found[0]["picture"]["ways"]
    assert [way["shown"] for way in drawn] == [True] * 4 + [False] * 2
    world = FourRooms()
    for way, rooms in zip(drawn, sum(ways.DRAWN_PAIRS, ()), strict=True):
        world.reset(seed=way["seed"])
        assert (room_of(world.position), room_of(world.goal)) == rooms
        assert math.dist(world.position, world.goal) > ways.DRAWN_DISTANCE
        np.testing.assert_allclose(way["goal"], world.goal, atol=0.01)
        for line in (way["path"], *way["beams"]):
            np.testing.assert_allclose(line[0], world.position, atol=0.01)
        assert way["reached"] == (math.dist(way["path"][-1], way["goal"]) <= 0.5)


def test_goals_in_hindsight_lie_on_the_recorded_ways(found):
    _, folder = found
    plain = load_dataset(str(folder / "data" / "trajlm/four-rooms/noisy-planner-v0"))
    store = load_dataset(str(folder / "data" / "trajlm/four-rooms/hindsight-v0"))
    assert len(store) == len(plain)
    for number in range(len(plain)):
        way = plain.rows("observations", number).tolist()
        goals = store.rows("observations/desired_goal", number).tolist()
        assert all(goal in way for goal in goals)


def test_seeds_are_those_of_the_rooms_asked_for():
    world = FourRooms()
    seeds = ways.seeds_of([(0, 3), (3, 0)], number=5, first=50)
    assert len(seeds) == 5 and seeds == sorted(seeds) and seeds[0] >= 50
    fitting = []
    for seed in range(50, seeds[-1] + 1):
        world.reset(seed=seed)
        if {room_of(world.position), room_of(world.goal)} == {0, 3}:
            fitting.append(seed)
    assert fitting == seeds
    shown = ways.shown_among(range(50, seeds[-1] + 1))
    assert [seed for seed, each in enumerate(shown, 50) if not each] == seeds


def test_the_planner_reaches_what_chance_does_not():
    seeds = range(40)
    assert np.mean(ways.reached_by_planner(seeds)) == 1.0
    assert np.mean(ways.reached_by_chance(seeds)) < 0.5
    assert ways.reached_by_chance(seeds) == ways.reached_by_chance(seeds)


def test_an_interval_is_over_episodes_of_one_training_and_over_several_trainings():
    one = ways.summary("m", "random pairs", {0: [1.0] * 9 + [0.0]})
    assert one["success"] == 0.9 and one["interval"] == wilson_interval(9, 10)
    several = ways.summary("m", "random pairs", {0: [1.0, 1.0], 1: [0.0, 1.0], 2: [1.0, 1.0]})
    assert several["seeds"] == [1.0, 0.5, 1.0] and several["interval_kind"].endswith("seeds")
    assert several["interval"][0] >= 0.5 and several["interval"][1] == 1.0


def test_wilsons_interval():
    """Against Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for counts, interval in published.items():
        assert wilson_interval(*counts) == pytest.approx(interval, abs=5e-5)
    with pytest.raises(UsageError):
        wilson_interval(3, 2)


def test_random_pairs_are_split_by_what_the_data_shows():
    rows = four_rooms.rows_of(
        "m", {0: [1.0, 0.0, 1.0, 1.0]}, [True, False, True, True], {0: [0.0, 1.0]}
    )
    assert [row["success"] for row in rows] == [0.75, 1.0, 0.5]
    assert [row["episodes"] for row in rows] == [4, 3, 2]


def test_an_algorithm_that_asks_for_returns_is_refused():
    with pytest.raises(UsageError, match="no rewards to ask for"):
        reproduce("four-rooms", scale="debug", algorithms=["decision_transformer/debug"])
    assert four_rooms.env_of("trajectory_transformer/goals") == ENV_ID
