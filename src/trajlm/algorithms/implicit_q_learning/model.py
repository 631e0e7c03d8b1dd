"""Implicit Q-learning: three networks, each with its loss, and a target that follows the critics.

Nothing is asked about an action that is not in the data: a state's value is an expectile over the
actions taken in it, the critics regress on it one step later, and the policy imitates the data's
actions, the better ones more. An update goes through the phases value, policy and critic in this
order, each with the networks as the one before left them; then the target takes on a share of the
critics (the authors' `learner.py`).

Deliberate differences from the published code: a step that a time limit ended is bootstrapped from
the observation after it where the data has one (theirs leaves it out); a log-likelihood is the mean
over an action's entries, not the sum, which Adam does not notice; observations are normalised
unless `normalize` is off. Discrete actions have a softmax in place of the normal distribution.

Legend: B batch, T time (1), N rows, E entries of an observation or action.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.algorithms.base import Algorithm, Loss, Phase, Prepared
from trajlm.algorithms.implicit_q_learning.config import Config, PolicyConfig
from trajlm.algorithms.implicit_q_learning.policy import policy_of
from trajlm.core.errors import DataError
from trajlm.core.protocols import Critic
from trajlm.core.spec import DataSpec, leaves
from trajlm.data.statistics import fitted_statistics
from trajlm.data.store import TrajectoryStore
from trajlm.nn.features import bounds_as_statistics, entries_of, features
from trajlm.nn.frames import FrameNetwork, FramePolicy
from trajlm.nn.heads import likelihood_head
from trajlm.nn.losses import masked_mean
from trajlm.sequence.batch import SequenceBatch, WindowRequest

RETURN_RANGE = 1000.0
NUM_CRITICS = 2


class ValueNetwork(nn.Module):
    """V(s), or Q(s, a) with `actions`: (B, T, ...)[, (B, T, ...)] -> (B, T)."""

    def __init__(
        self, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray], *, actions: bool
    ) -> None:
        super().__init__()
        self.observed = features(spec.observation, name="observations", fitted=fitted)
        bounds = bounds_as_statistics(spec.action, name="actions")
        self.acted = features(spec.action, name="actions", fitted=bounds) if actions else None
        size = self.observed.size + (self.acted.size if self.acted else 0)
        sizes = [size, *([config.width] * (config.num_layers - 1))]
        layers: list[nn.Module] = []
        for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, observations: Any, actions: Any = None) -> Tensor:
        entries = self.observed(observations)
        if self.acted is not None:
            entries = torch.cat([entries, self.acted(actions)], dim=-1)
        values: Tensor = self.body(entries)
        return values.squeeze(-1).float()


class Model(Algorithm):
    """See the module's docstring. As a critic it is its target, in the units of the data's rewards."""

    config: Config
    reward_scale: Tensor

    def __init__(self, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> None:
        super().__init__(config, spec)
        self.register_buffer("reward_scale", torch.ones(()))
        if "reward/scale" in fitted:
            self.reward_scale.fill_(float(fitted["reward/scale"]))
        self.state_value = ValueNetwork(config, spec, fitted, actions=False)
        self.critics = nn.ModuleList(
            ValueNetwork(config, spec, fitted, actions=True) for _ in range(NUM_CRITICS)
        )
        self.actor = FrameNetwork(
            spec,
            frames=1,
            width=config.width,
            num_layers=config.num_layers,
            dropout=config.dropout,
            fitted=fitted,
            head=likelihood_head,
        )
        self.apply(initialize)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)

    # ---- data -------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, config: Config, store: TrajectoryStore) -> Prepared:
        """Adds `terminals` and `whole` (M,); fits state statistics and the rewards' scale.

        A step is whole where it ends its episode or the observation after it is known. Unfinished
        episodes are learned from too: a step needs no more than the next. Raises `DataError` for
        data without next observations, and where returns do not differ but are to scale rewards.
        """
        cut = store.truncated & (store.lengths > 0)
        if not store.has_last_observation and config.without_next == "refuse" and cut.any():
            raise DataError(
                f"dataset {store.name!r} has no next observations: what follows the last step of "
                f"its {cut.sum()} truncated episodes is unknown; leave these steps out by "
                "--model.without-next drop"
            )
        fitted = fitted_statistics(store) if config.normalize else {}
        if config.reward_scaling == "return_range":
            spread = float(np.ptp(store.finished.returns))
            if not spread > 0.0:
                raise DataError(
                    f"dataset {store.name!r}: all returns are alike, so they give rewards no scale; "
                    "--model.reward-scaling none"
                )
            fitted["reward/scale"] = np.array(RETURN_RANGE / spread)
        return Prepared(store=with_ends(store), fitted=fitted)

    @classmethod
    def prepare_held_out(
        cls, config: Config, store: TrajectoryStore, fitted: Mapping[str, np.ndarray]
    ) -> TrajectoryStore:
        """Held-out episodes, at the scale of the others."""
        return with_ends(store)

    @classmethod
    def build(cls, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> Self:
        return cls(config, spec, fitted)

    @classmethod
    def windows(cls, config: Config, spec: DataSpec) -> WindowRequest:
        observations = tuple(leaves(spec.observation, "observations"))
        columns = (*observations, "actions", "rewards", "terminals", "whole")
        return WindowRequest(length=1, columns=columns, next_observations=True)

    # ---- losses -----------------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        """As published: the policy's rate follows the training's schedule, the values' is constant."""
        return (
            Phase(name="value", modules=("state_value",), schedule="constant"),
            Phase(name="policy", modules=("actor",)),
            Phase(name="critic", modules=("critics",), schedule="constant"),
        )

    def forward(self, batch: SequenceBatch, phase: str | None = None) -> Loss:
        """The loss of a phase; the sum of all without one."""
        losses = {
            "value": self.value_loss,
            "policy": self.policy_loss,
            "critic": self.critic_loss,
        }
        if phase is not None:
            return losses[phase](batch)
        each = [loss(batch) for loss in losses.values()]
        metrics = {name: value for loss in each for name, value in loss.metrics.items()}
        return Loss(torch.stack([loss.value for loss in each]).sum(), metrics)

    def value_loss(self, batch: SequenceBatch) -> Loss:
        """L_V = E |expectile - 1(u < 0)| u^2 with u = min Q'(s, a) - V(s) (equation 5)."""
        values = self.state_value(batch.observations)
        ahead = self.target_value(batch.observations, batch.actions) - values
        weights = torch.where(ahead > 0, self.config.expectile, 1.0 - self.config.expectile)
        loss = masked_mean(weights * ahead.square(), whole(batch))
        value = masked_mean(values.detach(), whole(batch))
        return Loss(loss, {"value_loss": loss.detach(), "value": value})

    def policy_loss(self, batch: SequenceBatch) -> Loss:
        """L_pi = -E min(exp(temperature (min Q'(s, a) - V(s))), 100) log pi(a | s) (equation 7)."""
        with torch.no_grad():
            taken = self.target_value(batch.observations, batch.actions)
            advantages = taken - self.state_value(batch.observations)
            largest = self.config.largest_weight
            weights = (self.config.temperature * advantages).exp().clamp_max(largest)
        hidden = self.actor.hidden(batch.observations, visible=torch.ones_like(batch.mask))
        nats = self.actor.head.loss(hidden, batch.actions)
        loss = masked_mean(weights * nats, whole(batch))
        return Loss(
            loss,
            {
                "policy_loss": loss.detach(),
                "policy_nats": masked_mean(nats.detach(), whole(batch)),
                "policy_weight": masked_mean(weights, whole(batch)),
            },
        )

    def critic_loss(self, batch: SequenceBatch) -> Loss:
        """L_Q = E sum_i (r + discount V(s') - Q_i(s, a))^2, without V after an end (equation 6)."""
        with torch.no_grad():
            rewards = batch.columns["rewards"].float() * self.reward_scale
            goes_on = ~batch.columns["terminals"].bool()
            after = torch.where(goes_on, self.state_value(batch.next_observations), 0.0)
            wanted = rewards + self.config.reward_shift + self.config.discount * after
        each = torch.stack([critic(batch.observations, batch.actions) for critic in self.critics])
        loss = masked_mean((each - wanted).square().sum(0), whole(batch))
        value = masked_mean(each.detach().mean(0), whole(batch))
        return Loss(loss, {"critic_loss": loss.detach(), "action_value": value})

    @torch.no_grad()
    def target_value(self, observations: Any, actions: Any) -> Tensor:
        """The lower of the targets' values, (B, T), in scaled rewards."""
        each = torch.stack([target(observations, actions) for target in self.targets])
        return each.amin(0)

    def after_update(self) -> None:
        """The target's weights take on their share of the critics' (Polyak averaging)."""
        followed: list[Tensor] = list(self.critics.parameters())
        following: list[Tensor] = list(self.targets.parameters())
        torch._foreach_lerp_(following, followed, self.config.target_rate)

    # ---- what it is used for ----------------------------------------------------------------

    def policy(
        self, config: PolicyConfig | None = None, *, guide: Critic | None = None, **overrides: Any
    ) -> FramePolicy:
        """Acts with this model. `overrides` are fields of `PolicyConfig`."""
        return policy_of(self.eval().actor, config, guide=guide, overrides=overrides)

    def critic(self) -> Critic:
        """The model itself."""
        return self.eval()

    @torch.no_grad()
    def value(self, observation: Any, action: Any) -> Tensor:
        """Q(s, a) of rows (N, E), (N, E) in the data's units of reward: (N,) float32.

        Discrete entries are rounded. Raises `CheckpointError` where rows have other entries than
        the model's spaces.
        """
        device = self.reward_scale.device
        values = self.target_value(
            entries_of(self.spec.observation, observation, name="observation", device=device),
            entries_of(self.spec.action, action, name="action", device=device),
        )
        return values[:, 0] / self.reward_scale

    def flops_per_step(self, batch_size: int) -> float:
        """Of one update: each network forth and back, and forth alone where it is a target."""
        forth_and_back = 6.0 * sum(p.numel() for p in self.parameters() if p.requires_grad)
        # V of the policy and of the next states, and the targets of value and policy.
        forth = 2.0 * 2 * sum(p.numel() for p in self.state_value.parameters())
        forth += 2.0 * 2 * sum(p.numel() for p in self.targets.parameters())
        return batch_size * (forth_and_back + forth)


def initialize(module: nn.Module) -> None:
    """As published: orthogonal matrices times sqrt(2), no biases."""
    if isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight, gain=2**0.5)
        nn.init.zeros_(module.bias)


def whole(batch: SequenceBatch) -> Tensor:
    """(B, T) bool: the steps that are learned from."""
    return batch.mask & batch.columns["whole"].bool()


def with_ends(store: TrajectoryStore) -> TrajectoryStore:
    """The store with `terminals` and `whole` (M,) uint8: see `Model.prepare`."""
    terminals, wholes = [], []
    for segment in store.segments:
        filled = segment.lengths > 0
        last = segment.offsets[1:] - 1
        ends = np.zeros(int(segment.lengths.sum()), np.uint8)
        ends[last[segment.terminated & filled]] = 1
        known = np.ones_like(ends)
        if not segment.has_last_observation:
            known[last[~segment.terminated & filled]] = 0
        terminals.append(ends)
        wholes.append(known)
    return store.with_column("terminals", terminals).with_column("whole", wholes)
