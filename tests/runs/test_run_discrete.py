"""From integers in a dataset to scores, where observations and actions are integers."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

import trajlm
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.envs.make import make_environment
from trajlm.envs.spaces import from_gymnasium

pytest.importorskip("pygame", reason="FrozenLake needs gymnasium's toy text")
ENV_ID = "FrozenLake-v1"
# From the start to the goal and nowhere else: down, down, right, right, down, right.
WAY = {0: 1, 4: 1, 8: 2, 9: 2, 10: 1, 14: 2}


def walks(environment: gymnasium.Env, episodes: int, generator: np.random.Generator):
    """Half of them take the way, half of them turn back: at the start, left, for ever."""
    for number in range(episodes):
        skilled = number % 2 == 0
        state, _ = environment.reset(seed=number)
        columns: dict[str, list] = {"observations": [state], "actions": [], "rewards": []}
        ended = truncated = False
        while not (ended or truncated) and len(columns["actions"]) < 12:
            action = WAY.get(state, 0) if skilled else int(generator.choice([0, 3]))
            state, reward, ended, truncated, _ = environment.step(action)
            columns["observations"].append(state)
            columns["actions"].append(action)
            columns["rewards"].append(reward)
        yield Trajectory(
            columns={name: np.array(column) for name, column in columns.items()},
            terminated=bool(ended),
            truncated=not ended,
        )


@pytest.fixture(scope="module")
def store() -> TrajectoryStore:
    environment = gymnasium.make(ENV_ID, is_slippery=False)
    made = make_environment(ENV_ID)
    return TrajectoryStore.from_trajectories(
        list(walks(environment, 60, np.random.default_rng(0))),
        observation_space=from_gymnasium(made.observation_space),
        action_space=from_gymnasium(made.action_space),
        env_id=ENV_ID,
    )


def test_asked_for_success_it_takes_the_way_and_asked_for_none_it_does_not(
    store: TrajectoryStore, tmp_path: Path
) -> None:
    """On a lake that does not slip; what it learned is asked in the dataset's own states."""
    run = trajlm.train(
        "decision_transformer/discrete",
        data=store,
        steps=150,
        output=tmp_path,
        overrides={"evaluation": {"episodes": 3, "video": False}, "threads": 1},
    )
    assert run.results is not None
    environment = gymnasium.make(ENV_ID, is_slippery=False)
    reached = {}
    for target in (1.0, 0.0):
        policy = run.model.policy(target_return=target)
        observation, _ = environment.reset(seed=1)
        carry, total = policy.initial(1), 0.0
        step = trajlm.Step.of(observation, is_first=True)
        for _ in range(12):
            carry, actions = policy.act(carry, step)
            observation, reward, ended, truncated, _ = environment.step(int(actions[0]))
            step, total = trajlm.Step.of(observation, reward=reward), total + reward
            if ended or truncated:
                break
        reached[target] = total
    assert reached == {1.0: 1.0, 0.0: 0.0}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_baselines_run_on_integers_too(
    temperature: float, store: TrajectoryStore, tmp_path: Path
) -> None:
    run = trajlm.train(
        "behavior_cloning/discrete",
        data=store,
        steps=20,
        output=tmp_path,
        overrides={
            "evaluation": {"episodes": 4, "video": False},
            "policy": {"temperature": temperature},
            "threads": 1,
        },
    )
    assert run.results is not None
    (row,) = run.results["rows"]
    assert (row["episodes"], row["failed"]) == (4, 0)
    assert 0.0 <= row["return_mean"] <= 1.0
