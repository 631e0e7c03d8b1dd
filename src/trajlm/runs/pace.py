"""This machine's pace, and what of a run fits into a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trajlm.algorithms.base import Algorithm
from trajlm.core.protocols import Condition, Step
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.envs.make import make_environment
from trajlm.envs.spaces import from_gymnasium
from trajlm.runs.assembly import assemble
from trajlm.runs.config import RunConfig
from trajlm.runs.estimate import update_rate
from trajlm.runs.machine import choose_device
from trajlm.runs.scoring import policy_of

EPISODE_STEPS = 1000
# Checkpoints, validation, and a machine that is a little slower than it was when measured.
SHARE_FOR_UPDATES = 0.85
FEWEST_UPDATES = 10
SHARE_FOR_SCORES = 0.3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Measured on this machine: updates a second, seconds of a whole evaluation."""

    updates_per_s: float
    evaluation_seconds: float

    def episodes(self, wanted: int, *, seconds: float) -> int:
        """How many of an evaluation's episodes fit into its share of `seconds`; 0 is possible."""
        allowed = SHARE_FOR_SCORES * seconds / max(self.evaluation_seconds, 1e-9)
        return int(wanted * min(1.0, allowed))


def with_updates(config: RunConfig, pace: Pace, *, seconds: float) -> RunConfig:
    """The run with as many of its updates as fit into `seconds`, never fewer than a few."""
    affordable = int(SHARE_FOR_UPDATES * seconds * pace.updates_per_s)
    planned = config.training.steps
    updates = min(planned, max(FEWEST_UPDATES, affordable))
    if updates < planned:
        logger.warning(
            "this machine makes %.1f updates/s: %s updates instead of %s, to keep the time",
            pace.updates_per_s,
            f"{updates:,}",
            f"{planned:,}",
        )
    # A schedule keeps its shape: the warm-up shrinks with the updates.
    warmup = config.training.warmup_steps * updates // planned
    training = replace(
        config.training, steps=updates, warmup_steps=warmup, time_limit=max(1.0, seconds)
    )
    return replace(config, training=training)


def measure(config: RunConfig, *, env_id: str) -> Pace:
    """The machine's pace on data of the environment's form, before there is any."""
    assembly = assemble(config, _stand_in(env_id))
    rate, _ = update_rate(config, assembly, device=choose_device(config.device))
    slots = config.evaluation.episodes * len(config.target_returns)
    acting = acting_seconds(assembly.model, config, slots=slots)
    return Pace(updates_per_s=rate, evaluation_seconds=acting * EPISODE_STEPS)


def acting_seconds(
    model: Algorithm, config: RunConfig, *, slots: int, seconds: float = 2.0
) -> float:
    """Seconds of one step of `slots` environments, policy and physics, with a full context."""
    model.eval()
    policy = policy_of(model, config.policy, config.evaluation)
    observation = model.spec.observation
    assert isinstance(observation, Box)
    step = Step(
        observation=np.zeros((slots, *observation.shape), np.float32),
        reward=np.zeros(slots),
        terminated=np.zeros(slots, bool),
        truncated=np.zeros(slots, bool),
        is_first=np.ones(slots, bool),
        seed=np.arange(slots),
    )
    asked = Condition(target_return=np.full(slots, model.spec.return_max))
    carry, _ = policy.act(policy.initial(slots, asked), step)
    later = replace(step, is_first=np.zeros(slots, bool))
    # Every policy here recomputes at most its window, whose length is the request's.
    for _ in range(model.windows(model.config, model.spec).length):
        carry, _ = policy.act(carry, later)
    before, steps = time.perf_counter(), 0
    while time.perf_counter() - before < seconds:
        carry, _ = policy.act(carry, later)
        steps += 1
    physics_per_step = 1 / 15_000.0
    return (time.perf_counter() - before) / steps + slots * physics_per_step


def _stand_in(env_id: str, *, episodes: int = 4) -> TrajectoryStore:
    """Noise in the form of the environment's data, to time updates on."""
    environment = make_environment(env_id)
    observation = from_gymnasium(environment.observation_space)
    action = from_gymnasium(environment.action_space)
    environment.close()
    generator = np.random.default_rng(0)

    def noise(steps: int, shape: Sequence[int]) -> np.ndarray:
        return generator.uniform(-1, 1, (steps, *shape)).astype(np.float32)

    trajectories = [
        Trajectory(
            columns={
                "observations": noise(EPISODE_STEPS + 1, observation.shape),  # type: ignore[union-attr]
                "actions": noise(EPISODE_STEPS, action.shape),  # type: ignore[union-attr]
                "rewards": noise(EPISODE_STEPS, ()),
            },
            terminated=False,
            truncated=True,
        )
        for _ in range(episodes)
    ]
    return TrajectoryStore.from_trajectories(
        trajectories, observation_space=observation, action_space=action, env_id=env_id
    )
