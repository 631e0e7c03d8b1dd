"""A search in the true maze: what a critic is worth where the states of a plan are not a model's.

It tells apart why a guided search is no better: with true states, only the critic is left to blame.

Legend: N environments, K candidates, H steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.collect.behaviour import BehaviourCarry
from trajlm.core.protocols import Condition, Critic, Step
from trajlm.core.seeding import uniform
from trajlm.envs.maze_map import MAZES
from trajlm.evaluation.point_maze import PointMaze

ARRIVED = 0.45
"""How near to its goal a point has arrived, as Gymnasium-Robotics has it."""
STREAM = 0x7275


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueSearch:
    """A `Policy` of a point in a maze: of K random plans the one of the greatest discounted reward
    and, where it does not arrive, the critic's value after it, in the simulator itself.

    A plan of H steps is two forces, one for each half of it.
    """

    critic: Critic
    maze: str
    horizon: int
    candidates: int
    discount: float

    @cached_property
    def _simulator(self) -> PointMaze:
        return PointMaze(MAZES[self.maze])

    def initial(self, num_envs: int, condition: Condition | None = None) -> BehaviourCarry:
        return BehaviourCarry(step=np.zeros(num_envs, np.int64))

    def act(self, carry: BehaviourCarry, step: Step) -> tuple[BehaviourCarry, np.ndarray]:
        """The first forces (N, 2) of the best plans."""
        carry = carry.restarted(step.is_first)
        seen = {name: np.asarray(each, np.float64) for name, each in dict(step.observation).items()}
        draws = uniform(step.seed, carry.step, lanes=4 * self.candidates, stream=STREAM)
        count = len(draws)
        forces = (2.0 * draws - 1.0).reshape(count, self.candidates, 2, 2)
        half = -(-self.horizon // 2)
        plans = np.concatenate(
            [
                forces[:, :, :1].repeat(half, axis=2),
                forces[:, :, 1:].repeat(self.horizon - half, axis=2),
            ],
            axis=2,
        )
        worth = self._worth(seen, plans)
        best = worth.argmax(axis=1)
        return carry.advanced(), forces[np.arange(count), best, 0].astype(np.float32)

    def _worth(self, seen: dict[str, np.ndarray], plans: np.ndarray) -> np.ndarray:
        """(N, K) of plans (N, K, H, 2); the critic judges the last action, taken in the state before."""
        count, candidates, horizon = plans.shape[:3]
        states = self._followed(seen["observation"], plans)  # (N, K, H + 1, 4)
        goals = np.broadcast_to(seen["desired_goal"][:, None], (count, candidates, 2))
        apart = np.linalg.norm(states[:, :, 1:, :2] - goals[:, :, None], axis=-1)
        arrived = apart <= ARRIVED
        when = np.where(arrived.any(axis=2), arrived.argmax(axis=2), horizon)
        before = states[:, :, -2].reshape(-1, 4)
        entries = np.concatenate([before[:, :2], goals.reshape(-1, 2), before], axis=1)
        value = self.critic.value(entries, plans[:, :, -1].reshape(-1, 2))
        later = self.discount ** (horizon - 1) * np.asarray(value).reshape(count, candidates)
        return np.asarray(np.where(when < horizon, self.discount**when, later))

    def _followed(self, present: np.ndarray, plans: np.ndarray) -> np.ndarray:
        """States (N, K, H + 1, 4): the present ones (N, 4), and those that plans lead to."""
        count, candidates, horizon = plans.shape[:3]
        first = present.repeat(candidates, axis=0)
        after = self._simulator.replay(first, plans.reshape(len(first), horizon, 2))
        now = np.broadcast_to(present[:, None, None], (count, candidates, 1, 4))
        return np.concatenate([now, after.reshape(count, candidates, horizon, 4)], axis=2)


def arrivals(run: Path, *, maze: str, horizon: int, candidates: int, episodes: int) -> list[float]:
    """Each episode's return, of the seeds that evaluations begin with, by a `TrueSearch` with the
    critic of a run, whose discount is also the search's."""
    from trajlm.evaluation.config import EvaluationConfig
    from trajlm.evaluation.rollout import rollout
    from trajlm.training.checkpoint import load_artefact

    model: Any = load_artefact(run)
    policy = TrueSearch(
        critic=model.critic(), maze=maze, horizon=horizon, candidates=candidates,
        discount=model.config.discount,
    )  # fmt: skip
    first = EvaluationConfig().seed
    seeds = [[first + number] for number in range(episodes)]
    found = rollout(policy, env_id=MAZES[maze], seeds=seeds)
    return [record.episode_return for (record,) in found.episodes]
