"""What the ensemble does instead of acting: it predicts, step by step, from the present alone.

Legend: N episodes, H horizon, E members, O observation entries, P = O + 1 predicted entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trajlm.core.errors import UsageError
from trajlm.core.protocols import Past, Policy, Prediction, Step
from trajlm.core.seeding import counter_bits, normal

if TYPE_CHECKING:
    from trajlm.algorithms.dynamics_ensemble.model import Model

MEMBER_STREAM, NOISE_STREAM = 0x3E3B, 0x3E3C


@dataclass(frozen=True)
class EnsembleWorld:
    """A `WorldModel` of single steps. Nothing that it predicts is clipped, unless it is to stay
    `within` (2, O): the lowest and the highest value of each entry."""

    model: Model
    context: int = 1
    models_actions: bool = False
    within: np.ndarray | None = None

    @torch.inference_mode()
    def predict(
        self,
        past: Past,
        *,
        horizon: int,
        actions: np.ndarray | Policy | None = None,
        seeds: np.ndarray | None = None,
    ) -> Prediction:
        """What follows `past` under `actions` (N, H, A), or those of a policy.

        With `seeds` (N,) each row keeps a member, drawn once, and draws each step from its Gaussian
        (TS-infinity of Chua et al. 2018); without, a step is the mean of all members' means.
        Raises `UsageError` without actions, which the ensemble does not model.
        """
        if actions is None:
            raise UsageError("actions: the ensemble models none; give recorded ones or a policy")
        count, size = len(past.observations), self.model.observation_size
        device = self.model.lowest.device
        present = past.observations[:, -1]
        state = torch.as_tensor(present.reshape(count, -1)[:, :size], device=device).double()
        policy = None if isinstance(actions, np.ndarray) else actions
        carry = None if policy is None else policy.initial(count)
        keys = np.arange(count) if seeds is None else seeds
        reward, observed, acted, earned = np.zeros(count), [], [], []
        for step in range(horizon):
            if policy is None:
                assert isinstance(actions, np.ndarray)
                action = actions[:, step]
            else:
                shown = _step(state, reward, keys, first=step == 0)
                carry, action = policy.act(carry, shown)
            change = self._changes(state, action, step=step, seeds=seeds)
            state = self._kept(state + change[:, :size])
            reward = change[:, size].cpu().numpy()
            observed.append(state.float().cpu().numpy())
            acted.append(np.asarray(action))
            earned.append(reward)
        return Prediction(
            observations=np.stack(observed, axis=1),
            actions=np.stack(acted, axis=1),
            rewards=np.stack(earned, axis=1),
        )

    def _kept(self, state: Tensor) -> Tensor:
        """The state (N, O) where it may be."""
        if self.within is None:
            return state
        low, high = torch.as_tensor(self.within, dtype=state.dtype, device=state.device)
        return torch.minimum(torch.maximum(state, low), high)

    def _changes(
        self, state: Tensor, action: np.ndarray, *, step: int, seeds: np.ndarray | None
    ) -> Tensor:
        """(N, P): the change of the state (N, O) and the reward, in raw units, float64."""
        model = self.model
        given = torch.as_tensor(np.asarray(action), device=state.device)
        inputs = model.inputs(state[:, None], given[:, None])[:, 0]
        members = range(model.config.members)
        if seeds is None:
            drawn = torch.stack([model.gaussian(m, inputs)[0] for m in members]).mean(0)
        else:
            drawn = torch.empty(len(state), len(model.targets.mean), device=state.device)
            chosen = counter_bits(MEMBER_STREAM, seeds) % np.uint64(len(members))
            noise = normal(
                seeds, np.full(len(seeds), step), lanes=drawn.shape[1], stream=NOISE_STREAM
            )
            for member in members:
                rows = torch.from_numpy(np.flatnonzero(chosen == member)).to(state.device)
                mean, log_variance = model.gaussian(member, inputs[rows])
                own = torch.from_numpy(noise).to(mean)[rows]
                drawn[rows] = mean + torch.exp(log_variance / 2) * own
        return (drawn * model.targets.std + model.targets.mean).double()


def _step(state: Tensor, reward: np.ndarray, seeds: np.ndarray, *, first: bool) -> Step:
    """What a policy is shown of predicted states (N, O)."""
    count = len(state)
    over = np.zeros(count, bool)
    return Step(
        observation=state.float().cpu().numpy(), reward=reward, terminated=over, truncated=over,
        is_first=np.full(count, first), seed=np.asarray(seeds, np.int64),
    )  # fmt: skip
