"""Acting with a Decision Transformer: many slots, one forward pass.

The carry holds the last K steps of each slot; every step recomputes the window, because the
published model's deeper layers see evicted steps through any cache (keys and values of layer two
and up depend on the whole window). The target falls by each reward received.

Legend: N slots, K context, L steps in use, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trajlm.algorithms.decision_transformer.config import PolicyConfig
from trajlm.core.config import overridden
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.nn.history import (
    action_dtype,
    append,
    append_observation,
    empty_window,
    empty_windows,
    newest,
    put_last,
)

if TYPE_CHECKING:
    from trajlm.algorithms.decision_transformer.model import Model


@dataclass(frozen=True, kw_only=True)
class Carry:
    """The last K steps of N slots, newest last; nothing before `steps` of them is real.

    `target` (N,): the return a fresh episode asks for. `remaining` (N, K): returns-to-go.
    `actions` (N, K, ...) as executed. `steps` (N,) int64: steps seen in this episode.
    """

    target: Tensor
    remaining: Tensor
    observations: Mapping[str, Tensor]
    actions: Tensor
    steps: Tensor

    def select(self, index: np.ndarray) -> Carry:
        """The memory of the slots at `index` (M,)."""
        rows = torch.as_tensor(index, device=self.steps.device)
        taken = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name != "observations"
        }
        return Carry(observations={n: o[rows] for n, o in self.observations.items()}, **taken)


@dataclass(frozen=True)
class DecisionTransformerPolicy:
    """Asks `model` for the action of the newest step. Built by `Model.policy`."""

    model: Model
    config: PolicyConfig

    @classmethod
    def of(cls, model: Model, config: PolicyConfig, **overrides: Any) -> DecisionTransformerPolicy:
        """`overrides` are fields of the configuration; a single target return may be a number."""
        target = overrides.get("target_return")
        if isinstance(target, int | float | str):
            overrides["target_return"] = (target,)
        config = overridden(config, overrides, name="policy")
        if config.return_prior > 0.0 and not model.config.predict_returns:
            raise UsageError(
                "return_prior: this model predicts no returns; train it with model.predict_returns"
            )
        return cls(model.eval(), config)

    @property
    def context_length(self) -> int:
        longest: int = self.model.config.context_length
        return min(self.config.context_length or longest, longest)

    def initial(self, num_envs: int, condition: Condition | None = None) -> Carry:
        """An empty memory. The condition's target returns (N,), else the configuration's only one,
        else the best return of the data."""
        device, length = self.model.return_scale.device, self.context_length
        spec = self.model.spec
        observations = empty_windows(spec.observation, num_envs, length=length, device=device)
        return Carry(
            target=self._targets(num_envs, condition).to(device),
            remaining=torch.zeros(num_envs, length, device=device),
            observations=observations,
            actions=empty_window(spec.action, num_envs, length=length, device=device),
            steps=torch.zeros(num_envs, dtype=torch.int64, device=device),
        )

    def _targets(self, num_envs: int, condition: Condition | None) -> Tensor:
        if condition is not None and condition.target_return is not None:
            asked = np.asarray(condition.target_return, np.float32)
            if asked.shape != (num_envs,) or not np.isfinite(asked).all():
                raise UsageError(f"target_return: expected {num_envs} finite numbers, one a slot")
            return torch.from_numpy(asked)
        configured = self.config.target_return
        if configured is not None and len(configured) > 1:
            raise UsageError(
                "target_return: several are configured; pass one a slot in a Condition"
            )
        asked_return = self.model.spec.asked_return("max" if configured is None else configured[0])
        return torch.full((num_envs,), asked_return)

    @torch.inference_mode()
    def act(self, carry: Carry, step: Step) -> tuple[Carry, np.ndarray]:
        """The carry with this step in it, and the actions (N, ...) within the bounds."""
        carry = self._observe(carry, step)
        if self.config.return_prior > 0.0 and step.is_first.any():
            carry = self._propose(carry)
        action = self.model.head.choose(
            self._hidden(carry),
            temperature=self.config.temperature,
            seed=step.seed,
            step=carry.steps.cpu().numpy(),
        )
        carry = replace(carry, actions=put_last(carry.actions, action))
        return carry, action.cpu().numpy().astype(action_dtype(self.model.spec.action))

    def _observe(self, carry: Carry, step: Step) -> Carry:
        """Moves each slot's window on by the new observation and the return still asked for."""
        device = carry.steps.device
        first = torch.as_tensor(step.is_first, device=device)
        reward = torch.as_tensor(np.asarray(step.reward), device=device).float()
        if self.model.spec.delayed_reward:  # all of it comes at the end: the return asked for stays
            reward = torch.zeros_like(reward)
        remaining = torch.where(first, carry.target, carry.remaining[:, -1] - reward)
        return replace(
            carry,
            remaining=append(carry.remaining, remaining),
            observations=append_observation(carry.observations, step.observation),
            actions=append(carry.actions, torch.zeros_like(carry.actions[:, 0])),
            steps=torch.where(first, 0, carry.steps) + 1,
        )

    def _propose(self, carry: Carry) -> Carry:
        """Fresh episodes ask for a return that is likely from their first state, and high."""
        proposed = self.model.return_head.propose(
            self._hidden(carry, known=torch.zeros_like(carry.steps, dtype=torch.bool)),
            ceiling=carry.target,
            prior=self.config.return_prior,
        )
        asked = torch.where(carry.steps == 1, proposed, carry.remaining[:, -1])
        return replace(carry, remaining=put_last(carry.remaining, asked))

    def _hidden(self, carry: Carry, *, known: Tensor | None = None) -> Tensor:
        """What the heads read for the newest step, from as many steps as any slot has: (N, D)."""
        length = min(int(carry.steps.max()), self.context_length)
        ages = torch.arange(length - 1, -1, -1, device=carry.steps.device)
        visible = ages < carry.steps[:, None]  # (N, L)
        rows = self.model.embed_timestep.num_embeddings
        seen = carry.steps.clamp(max=length) if self.model.config.window_timesteps else carry.steps
        timesteps = (seen[:, None] - 1 - ages).clamp(0, rows - 1)
        with torch.autocast(
            carry.steps.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        ):
            hidden: Tensor = self.model.hidden(
                returns_to_go=carry.remaining[:, -length:],
                observations=newest(carry.observations, length),
                actions=carry.actions[:, -length:],
                timesteps=timesteps,
                visible=None if bool(visible.all()) else visible,
                known=known,
                last_only=True,
            )
        return hidden[:, 0].float()
