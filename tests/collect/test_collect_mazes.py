"""Walks through mazes: what an episode depends on, what is written, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trajlm.collect import mazes
from trajlm.collect.collector import collect
from trajlm.core.errors import DataError, StorageError, UsageError
from trajlm.data.load import load_dataset
from trajlm.data.sources.minari import write
from trajlm.data.store import TrajectoryStore
from trajlm.envs.maze_map import MAZES, MazeMap
from trajlm.runs.assembly import assemble
from trajlm.runs.config import resolve

UMAZE = "pointmaze-umaze"
MAP = MazeMap(walls=((1, 1, 1, 1, 1), (1, 0, 0, 0, 1), (1, 1, 1, 0, 1), (1, 0, 0, 0, 1), (1,) * 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return collect(UMAZE, "waypoints", steps=200, root=tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def store(folder):
    return load_dataset(str(folder))


def test_the_data_hold_goals_and_end_at_them(store):
    assert store.env_id == MAZES[UMAZE]
    assert 200 <= store.num_steps < 260
    assert set(store.observation_space.subspaces) == {
        "achieved_goal",
        "desired_goal",
        "observation",
    }
    assert not store.unfinished.any() and store.has_last_observation
    for number in range(len(store)):
        places, goals = (
            store.rows(f"observations/{name}", number) for name in ("achieved_goal", "desired_goal")
        )
        assert (goals == goals[0]).all()
        away = np.linalg.norm(places - goals, axis=1)
        assert (away[1:-1] > 0.45).all()
        assert (away[-1] <= 0.45) == store.terminated[number] == (store.returns[number] == 1.0)


def test_an_episode_depends_on_its_number_alone(store):
    again = list(itertools.islice(mazes.walks(MAZES[UMAZE], steps=10_000), 2))
    (later,) = itertools.islice(mazes.walks(MAZES[UMAZE], steps=1, seed=1), 1)
    for number, episode in enumerate(again):
        assert np.array_equal(episode.columns["actions"], store.rows("actions", number))
    assert np.array_equal(later.columns["actions"], again[1].columns["actions"])
    assert not np.array_equal(again[0].columns["actions"][:5], again[1].columns["actions"][:5])


def test_a_walker_goes_to_cells_nearby_and_only_through_free_ones():
    ways = mazes.short_ways(MAP, (1, 1))
    assert sorted(way[-1] for way in ways) == [(1, 2), (1, 3)]
    walker, generator = mazes.Walker(MAP, noise=0.0), np.random.default_rng(0)
    place, speed, visited = MAP.centre((1, 1)), np.zeros(2), set()
    for _ in range(600):
        observation = np.concatenate([place, speed])
        force = walker(generator, {"observation": observation})
        assert force.dtype == np.float32 and (np.abs(force) <= 1).all()
        speed = speed + 1.2 * force
        place = place + 0.05 * speed
        visited.add(MAP.cell_of(place))
    assert visited == set(MAP.free)


def test_what_is_refused(folder, tmp_path):
    root = folder.parents[2]
    with pytest.raises(StorageError, match="exists already"):
        collect(UMAZE, "waypoints", steps=10, root=root)
    with pytest.raises(UsageError, match="did you mean 'pointmaze-umaze'"):
        collect("pointmaze-umase", "waypoints", steps=10, root=tmp_path)
    with pytest.raises(UsageError, match="write pointmaze-umaze/waypoints"):
        collect(UMAZE, "expert", steps=10, root=tmp_path)
    with pytest.raises(UsageError, match="steps must be 1 or more"):
        collect(UMAZE, "waypoints", steps=0, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["implicit_q_learning/maze", "trajectory_transformer/maze"])
def test_data_of_a_maze_without_goals_are_refused_before_training(recipe, store, tmp_path):
    episodes = [store.episode(number) for number in range(len(store))]
    plain = TrajectoryStore.from_trajectories(
        [
            type(each)(
                columns={
                    "observations": each.columns["observations/observation"],
                    "actions": each.columns["actions"],
                    "rewards": each.columns["rewards"],
                },
                terminated=each.terminated,
                truncated=each.truncated,
            )
            for each in episodes
        ],
        observation_space=store.observation_space.subspaces["observation"],
        action_space=store.action_space,
        env_id=store.env_id,
        name="without-goals",
    )
    folder = write(plain, dataset_id="trajlm/without-goals-v0", root=tmp_path)
    with pytest.raises(DataError, match=r"without-goals.*PointMaze_UMaze.*no `desired_goal`"):
        assemble(resolve(recipe), load_dataset(str(folder)))
