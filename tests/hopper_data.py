"""Short recordings of Hopper-v5 under random actions, for tests of planning: a second to make."""

from __future__ import annotations

import numpy as np

from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.envs.make import make_environment
from trajlm.envs.spaces import from_gymnasium

ENV_ID = "Hopper-v5"


def hopper_store(episodes: int = 24) -> TrajectoryStore:
    environment = make_environment(ENV_ID)
    trajectories = [_episode(environment, seed) for seed in range(episodes)]
    spaces = environment.observation_space, environment.action_space
    environment.close()
    observation, action = map(from_gymnasium, spaces)
    return TrajectoryStore.from_trajectories(
        trajectories, observation_space=observation, action_space=action, env_id=ENV_ID
    )


def _episode(environment, seed: int) -> Trajectory:
    """Until it falls."""
    generator = np.random.default_rng(seed)
    observation, _ = environment.reset(seed=seed)
    observations, actions, rewards, ended = [observation], [], [], False
    while not ended:
        actions.append(generator.uniform(-0.3, 0.3, 3))
        observation, reward, ended, _, _ = environment.step(actions[-1].astype(np.float32))
        observations.append(observation)
        rewards.append(reward)
    columns = {
        "observations": np.array(observations, np.float32),
        "actions": np.array(actions, np.float32),
        "rewards": np.array(rewards, np.float32),
    }
    return Trajectory(columns=columns, terminated=True, truncated=False, seed=seed)
