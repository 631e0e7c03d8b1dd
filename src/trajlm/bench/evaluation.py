"""Evaluation speed: many environments in one forward pass, against one environment at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from trajlm.algorithms.decision_transformer.model import Model
from trajlm.bench.baselines import transformers_model, tutorial_action
from trajlm.bench.timing import seconds
from trajlm.bench.training import CONFIG, RETURN_SCALE, SPEC
from trajlm.core.protocols import Condition
from trajlm.envs.make import make_environment, make_vector
from trajlm.evaluation.rollout import rollout

ENV_ID = "HalfCheetah-v5"


@dataclass(frozen=True, kw_only=True)
class EvaluationSpeed:
    """Milliseconds an environment step, both sides; physics is in both."""

    ours: float
    theirs: float
    our_physics: float
    slots: int

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def evaluation_speed(
    *,
    precision: Literal["float32", "bf16"] = "float32",
    slots: int = 200,
    baseline_steps: int = 1000,
) -> EvaluationSpeed:
    """One whole HalfCheetah episode in each slot, against one episode of the tutorial's loop.

    The cost of a step depends on the model's shape alone, so both models are fresh ones.
    """
    theirs = tutorial_episode(steps=baseline_steps)  # first: it may be missing
    torch.manual_seed(0)
    policy = Model.build(CONFIG, SPEC, {}).policy(precision=precision)
    environment = make_vector(ENV_ID, num_envs=slots, tolerate_failures=True)
    targets = np.repeat([6000.0, 12000.0], slots // 2)
    ours = rollout(
        policy,
        seeds=np.arange(slots)[:, None],
        environment=environment,
        conditions=Condition(target_return=targets),
    )
    environment.close()
    return EvaluationSpeed(
        ours=1e3 * ours.total_seconds / ours.steps,
        theirs=1e3 * theirs / baseline_steps,
        our_physics=1e3 * ours.physics_seconds / ours.steps,
        slots=slots,
    )


def tutorial_episode(*, steps: int) -> float:
    """Seconds of `steps` steps of the tutorial's loop with `transformers`' model."""
    model = transformers_model(observation_size=17, action_size=6, horizon=SPEC.horizon).eval()
    environment = make_environment(ENV_ID)

    def loop() -> None:
        observation, _ = environment.reset(seed=0)
        states = torch.as_tensor(observation, dtype=torch.float32)[None]
        actions = torch.zeros((0, 6))
        returns_to_go = torch.tensor([12000.0 / RETURN_SCALE])
        timesteps = torch.zeros(1, dtype=torch.int64)
        for step in range(steps):
            actions = torch.cat([actions, torch.zeros((1, 6))])
            action = tutorial_action(model, states, actions, returns_to_go, timesteps)
            actions[-1] = action
            observation, reward, *_ = environment.step(action.numpy())
            states = torch.cat([states, torch.as_tensor(observation, dtype=torch.float32)[None]])
            left = returns_to_go[-1] - float(reward) / RETURN_SCALE
            returns_to_go = torch.cat([returns_to_go, left[None]])
            timesteps = torch.cat([timesteps, torch.tensor([step + 1])])

    elapsed = seconds(loop)
    environment.close()
    return elapsed
