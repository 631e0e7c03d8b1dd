"""Mazes of Gymnasium-Robotics: found by their ids, their episodic form, and the map of their cells."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from trajlm.core.errors import EnvironmentFault
from trajlm.core.spec import Box
from trajlm.envs import robotics
from trajlm.envs.make import make_environment, make_vector, max_episode_steps
from trajlm.envs.maze_map import MAZES, MazeMap

UMAZE = MAZES["pointmaze-umaze"]


@pytest.fixture(scope="module")
def umaze():
    return make_environment(UMAZE)


def test_the_mazes_have_a_fifth_of_the_registered_steps():
    limits = {name: max_episode_steps(env_id) for name, env_id in MAZES.items()}
    assert limits == {"pointmaze-umaze": 60, "pointmaze-medium": 120, "pointmaze-large": 160}
    assert max_episode_steps("PointMaze_Large-v3") == 800


def test_registering_them_leaves_gymnasiums_own_entries():
    make_environment(UMAZE)
    entry = gymnasium.registry["HalfCheetah-v3"].entry_point
    assert not str(entry).startswith("gymnasium_robotics")


def test_no_model_file_is_left(umaze):
    left = set(Path(tempfile.gettempdir()).glob("ant_maze*.xml"))
    make_environment("PointMaze_UMaze-v3").close()
    make_environment(UMAZE).close()
    assert set(Path(tempfile.gettempdir()).glob("ant_maze*.xml")) <= left


def test_an_action_is_held_for_five_steps_of_the_registered_maze(umaze):
    plain = make_environment("PointMaze_UMaze-v3")
    observation, info = umaze.reset(seed=5)
    before, _ = plain.reset(seed=5)
    for name in before:
        assert np.array_equal(observation[name], before[name])
    assert np.array_equal(info["goal"], observation["desired_goal"].astype(np.float32))
    for action in (np.array([0.3, -1.0]), np.array([1.0, 0.5])):
        observation, *_ = umaze.step(action)
        for _ in range(robotics.HELD):
            expected, *_ = plain.step(action)
        assert np.array_equal(observation["observation"], expected["observation"])


def test_an_episode_ends_at_its_goal_and_returns_its_success(umaze):
    observation, _ = umaze.reset(seed=0, options={"reset_cell": (1, 1), "goal_cell": (1, 3)})
    rewards, terminated, truncated = [], False, False
    while not (terminated or truncated):
        wanted = observation["desired_goal"] - observation["observation"][:2]
        action = np.clip(wanted - 0.3 * observation["observation"][2:], -1.0, 1.0)
        observation, reward, terminated, truncated, _ = umaze.step(action)
        rewards.append(reward)
    away = np.linalg.norm(observation["desired_goal"] - observation["achieved_goal"])
    assert terminated and not truncated and away <= 0.45
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]


def test_an_episode_without_success_is_truncated_and_returns_nothing(umaze):
    umaze.reset(seed=0, options={"reset_cell": (1, 1), "goal_cell": (3, 1)})
    steps = [umaze.step(np.zeros(2, np.float32)) for _ in range(60)]
    assert sum(step[1] for step in steps) == 0.0
    assert [step[3] for step in steps] == [False] * 59 + [True]


def test_the_goal_is_in_every_step_and_the_space_is_a_mapping():
    vector = make_vector(UMAZE, num_envs=2)
    step = vector.reset(seeds=np.array([1, 2]))
    assert step.goal is not None
    assert np.array_equal(step.goal, np.float32(step.observation["desired_goal"]))
    names = vector.observation_space.subspaces
    assert {name: leaf.shape for name, leaf in names.items()} == {
        "achieved_goal": (2,),
        "desired_goal": (2,),
        "observation": (4,),
    }
    assert vector.action_space == Box(shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))


def test_the_map_is_the_environments(umaze):
    there = umaze.unwrapped.maze
    found = MazeMap.of(umaze)
    assert len(found.free) == 7
    for cell in found.free:
        assert np.array_equal(found.centre(cell), there.cell_rowcol_to_xy(np.array(cell)))
        assert found.cell_of(found.centre(cell) + 0.4) == cell
    assert found.way((1, 1), (3, 1)) == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]
    assert found.way((1, 2), (1, 2)) == [(1, 2)]
    with pytest.raises(ValueError, match=r"no way from \(1, 1\) to \(2, 1\)"):
        found.way((1, 1), (2, 1))


def test_a_misspelt_maze_is_told_its_name():
    with pytest.raises(EnvironmentFault, match="did you mean 'trajlm/PointMaze_UMaze-v3'"):
        make_environment("trajlm/PointMaze_UMase-v3")


def test_without_the_package_the_line_that_brings_it_is_told(monkeypatch):
    monkeypatch.setattr(robotics, "installed", lambda: False)
    for env_id in (UMAZE, "PointMaze_UMaze-v3", "AntMaze_UMaze-v5"):
        monkeypatch.delitem(gymnasium.registry, env_id, raising=False)
        with pytest.raises(EnvironmentFault, match=r'pip install "trajlm\[robotics\]"'):
            make_environment(env_id)
