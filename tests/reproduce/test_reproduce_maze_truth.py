"""The search in the true maze: its simulator is the environment, and it takes the best plan."""

from __future__ import annotations

import numpy as np
import pytest

from trajlm.core.protocols import Step
from trajlm.envs.make import make_environment
from trajlm.envs.maze_map import MAZES
from trajlm.reproduce.maze_truth import ARRIVED, TrueSearch

MAZE = "pointmaze-medium"


class Eastward:
    """A critic that likes what lies in the east."""

    def value(self, observation, action):
        assert observation.shape[1] == 8 and action.shape[1] == 2
        np.testing.assert_array_equal(observation[:, :2], observation[:, 4:6])
        return 1e-3 * observation[:, 0]


def search(horizon: int, candidates: int = 32) -> TrueSearch:
    return TrueSearch(
        critic=Eastward(), maze=MAZE, horizon=horizon, candidates=candidates, discount=0.99
    )


def step(place, goal, *, speed=(0.0, 0.0), seed: int = 0) -> Step:
    observation = {
        "achieved_goal": np.array([place], np.float64),
        "desired_goal": np.array([goal], np.float64),
        "observation": np.array([[*place, *speed]], np.float64),
    }
    flags = np.zeros(1, bool)
    return Step(
        observation=observation, reward=np.zeros(1), terminated=flags, truncated=flags,
        is_first=~flags, seed=np.array([seed]),
    )  # fmt: skip


def test_its_states_are_those_of_the_environment():
    environment = make_environment(MAZES[MAZE])
    observation, _ = environment.reset(seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)
    present = np.asarray(observation["observation"])[None]
    found = search(20)._followed(present, actions[None, None].astype(np.float64))[0, 0]
    np.testing.assert_array_equal(found[0], observation["observation"])
    for action, state in zip(actions, found[1:], strict=True):
        observation, _, ended, _, _ = environment.step(action)
        assert not ended
        np.testing.assert_allclose(state, observation["observation"], atol=1e-12)
    environment.close()


@pytest.mark.parametrize("horizon", [3, 4])
def test_it_follows_the_critic_where_no_plan_arrives(horizon: int):
    policy = search(horizon)
    carry = policy.initial(1)
    carry, east = policy.act(carry, step((1.5, 2.0), (-2.6, -2.3)))
    assert carry.step.tolist() == [1]
    assert east.shape == (1, 2) and east.dtype == np.float32
    assert east[0, 0] > 0.5
    _, again = policy.act(policy.initial(1), step((1.5, 2.0), (-2.6, -2.3)))
    np.testing.assert_array_equal(east, again)


def test_a_plan_that_arrives_is_better_than_the_critics_east():
    place = np.array([1.5, 2.0])
    policy = search(6, candidates=128)
    _, action = policy.act(policy.initial(1), step(place, place - [ARRIVED + 0.1, 0.0]))
    assert action[0, 0] < -0.5
