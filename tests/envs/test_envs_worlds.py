"""The project's own worlds: Gymnasium's checker, seeds, oracles, and what holds whatever is done."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.core.errors import EnvironmentFault
from trajlm.envs import key_to_door, shortest_path
from trajlm.envs.make import make_environment, make_vector, max_episode_steps
from trajlm.envs.worlds import WORLDS

DOORS, GRAPH = key_to_door.ENV_ID, shortest_path.ENV_ID


@pytest.mark.parametrize("env_id", [DOORS, GRAPH])
@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker_is_content(env_id):
    check_env(make_environment(env_id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("env_id", [DOORS, GRAPH])
def test_equal_seeds_give_equal_episodes_and_others_differ(env_id):
    def played(seed):
        environment = make_environment(env_id)
        seen = [environment.reset(seed=seed)[0]]
        seen += [environment.step(action)[0] for action in (0, 1, 2, 3, 1)]
        return np.array(seen)

    assert np.array_equal(played(5), played(5))
    assert any(not np.array_equal(played(5), played(seed)) for seed in (6, 7, 8))


@pytest.mark.parametrize("env_id", [DOORS, GRAPH])
def test_pictures_show_the_agent_move(env_id):
    environment = make_environment(env_id, render_mode="rgb_array")
    environment.reset(seed=1)
    before = environment.render()
    graph = env_id == GRAPH
    action = shortest_path.oracle(environment.unwrapped.node) if graph else 2
    environment.step(action)
    after = environment.render()
    assert before.dtype == np.uint8 and before.shape == after.shape and before.shape[2] == 3
    assert not np.array_equal(before, after)


def test_a_misspelt_world_is_told_its_name():
    with pytest.raises(EnvironmentFault, match="did you mean 'trajlm/KeyToDoor-v0'"):
        make_environment("trajlm/KeyToDor-v0")


def test_every_listed_world_can_be_made():
    for env_id in WORLDS:
        vector = make_vector(env_id, num_envs=2)
        vector.reset(seeds=np.array([0, 1]))
        vector.close()


# ---- Key-to-Door ----------------------------------------------------------------------------------


def walked(act, seed):
    """(rewards, info of each step) of an episode."""
    environment = make_environment(DOORS)
    observation, _ = environment.reset(seed=seed)
    rewards, infos, over = [], [], False
    while not over:
        observation, reward, over, truncated, info = environment.step(act(observation))
        assert environment.observation_space.contains(observation) and not truncated
        rewards.append(reward)
        infos.append(info)
    return rewards, infos


def test_the_oracle_always_succeeds():
    for seed in range(200):
        rewards, infos = walked(key_to_door.oracle, seed)
        assert rewards == [0.0] * 23 + [1.0]
        assert infos[7]["key"] and not infos[15]["door"]


def test_random_actions_succeed_about_as_often_as_documented():
    generator = np.random.default_rng(0)
    returns = [sum(walked(lambda _: int(generator.integers(4)), seed)[0]) for seed in range(2000)]
    assert 0.034 - 0.012 < np.mean(returns) < 0.034 + 0.012  # three deviations


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), actions=st.lists(st.integers(0, 3), min_size=24, max_size=24))
def test_whatever_is_done_the_phases_are_fixed_and_only_key_and_door_pay(seed, actions):
    following = iter(actions)
    rewards, infos = walked(lambda _: next(following), seed)
    assert len(rewards) == 24 and not any(rewards[:-1])
    assert rewards[-1] == float(infos[-1]["key"] and infos[-1]["door"])
    assert [info["room"] for info in infos] == [0] * 7 + [1] * 8 + [2] * 9
    keys = [info["key"] for info in infos]
    assert keys == sorted(keys) and keys[7] == keys[-1]  # taken in the first room or never


def test_the_door_does_not_show_whether_the_key_is_held():
    """Two episodes that differ in the first room alone look the same from the second on."""

    def seen(takes):
        environment = make_environment(DOORS)
        observation, _ = environment.reset(seed=3)
        rows = []
        for step in range(24):
            wanted = takes or step >= 8
            observation, reward, *_ = environment.step(
                key_to_door.oracle(observation) if wanted else 0
            )
            rows.append(observation)
        return np.array(rows), reward

    (with_key, one), (without, none) = seen(True), seen(False)
    assert np.array_equal(with_key[7:], without[7:])
    assert (one, none) == (1.0, 0.0)


# ---- shortest paths -------------------------------------------------------------------------------


def test_the_graph_is_the_documented_one():
    edges, distances = shortest_path.edges(), shortest_path.distances()
    assert edges.shape == (20, 20) and not edges.diagonal().any()
    assert edges.any(axis=1).all()
    assert np.bincount(distances).tolist() == [1, 1, 2, 4, 5, 6, 1]
    ahead = np.where(edges, distances[None], 99).min(axis=1)
    assert np.array_equal(distances[:19], 1 + ahead[:19])


def test_the_oracle_arrives_by_a_shortest_path():
    environment = make_environment(GRAPH)
    starts = set()
    for seed in range(100):
        node, info = environment.reset(seed=seed)
        starts.add(int(node))
        total, terminated = 0.0, False
        while not terminated:
            node, reward, terminated, truncated, _ = environment.step(
                shortest_path.oracle(int(node))
            )
            assert not truncated or terminated
            total += reward
        assert total == -info["distance"]
    assert starts == set(range(19))


def test_without_an_edge_the_agent_stays_until_the_limit():
    environment = make_environment(GRAPH)
    node, _ = environment.reset(seed=0)
    action = int(np.flatnonzero(~shortest_path.edges()[node])[0])
    steps = [environment.step(action) for _ in range(10)]
    assert max_episode_steps(GRAPH) == 10
    assert [int(step[0]) for step in steps] == [int(node)] * 10
    assert [step[3] for step in steps] == [False] * 9 + [True]
    assert not any(step[2] for step in steps)
    assert [step[1] for step in steps] == [-1.0] * 9 + [-11.0]
