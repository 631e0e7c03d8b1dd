"""What plans are kept by: the discounted sum of predicted rewards and what is to come after.

Legend: R rows, V tokens, D slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trajlm.core.errors import CheckpointError
from trajlm.core.protocols import Critic
from trajlm.nn.discretizer import Discretizer
from trajlm.nn.slots import Layout
from trajlm.planning.beam import Transition


@dataclass(frozen=True, kw_only=True)
class RewardScorer:
    """sum_i<=t discount^i r_i + discount^(t+1) V_t (Janner et al. 2021, section 3.3; V_t excludes
    r_t).

    Rewards and values are means (or a percentile) over the whole predicted distributions, not
    the tokens that follow; a stop's share counts as 0. After a predicted end nothing is added.
    A `guide` replaces what comes after: sum_i<t discount^i r_i + discount^t Q(s_t, a_t).
    """

    layout: Layout
    discretizer: Discretizer
    discount: float
    percentile: float | None = None
    guide: Critic | None = None

    def initial(self, rows: int, *, like: Tensor) -> Tensor:
        """(R, 1): the discounted rewards so far."""
        return like.new_zeros(rows, 1)

    def __call__(self, depth: int, memory: Tensor, seen: Transition) -> tuple[Tensor, Tensor]:
        rewards = memory[:, 0]
        reward = self.decoded(seen.watched[self.layout.reward], self.layout.reward)
        total = rewards + torch.where(seen.alive, self.discount**depth * reward, 0.0)
        if self.guide is None:
            value = self.decoded(seen.watched[self.layout.value], self.layout.value)
            after = self.discount ** (depth + 1) * value
            scores = total + torch.where(seen.alive, after, 0.0)
        else:
            after = self.discount**depth * self._guided(seen.previous, like=rewards)
            scores = rewards + torch.where(seen.alive, after, 0.0)
        return total[:, None], scores

    def decoded(self, log_probabilities: Tensor, slot: int) -> Tensor:
        """(R, V) -> (R,) in reward units."""
        bins = log_probabilities[:, : self.discretizer.num_bins].exp()
        if self.percentile is None:
            return self.discretizer.expectation(bins, dimension=slot)
        return self.discretizer.percentile(bins, self.percentile, dimension=slot).to(bins.dtype)

    def _guided(self, transitions: Tensor, *, like: Tensor) -> Tensor:
        assert self.guide is not None
        decoded = self.discretizer.decode(transitions)
        observations = decoded[:, : self.layout.observation_size]
        given = self.guide.value(observations, decoded[:, self.layout.actions])
        value = torch.as_tensor(given, dtype=like.dtype, device=like.device).flatten()
        if value.shape != like.shape:
            raise CheckpointError(
                f"guide: gave {tuple(value.shape)} values for {len(like)} states and actions"
            )
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError("guide: a value is not finite")
        return value
