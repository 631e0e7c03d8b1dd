"""Planned tokens as numbers: what would be observed, done and earned.

Legend: P plans, H planned transitions, D slots, O observation entries, A action entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trajlm.nn.discretizer import Discretizer
from trajlm.nn.slots import Layout


@dataclass(frozen=True, kw_only=True)
class Futures:
    """`observations` (P, H-1, O): after 1 .. H-1 steps. `actions` (P, H, A), `rewards` and
    `values` (P, H): of the steps 0 .. H-1, as their tokens say; a value is what comes after."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, tokens: Tensor, *, layout: Layout, discretizer: Discretizer) -> Futures:
        """Plans (P, H x D - O), which begin with the first action."""
        known = tokens.new_zeros(len(tokens), layout.observation_size)
        rows = torch.cat([known, tokens], dim=1).unflatten(1, (-1, layout.size))
        decoded = discretizer.decode(rows).cpu().numpy()
        return cls(
            observations=decoded[:, 1:, : layout.observation_size],
            actions=decoded[:, :, layout.actions],
            rewards=decoded[:, :, layout.reward],
            values=decoded[:, :, layout.value],
        )
