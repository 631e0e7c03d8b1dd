"""Dynamics ensemble: single-step probabilistic networks that predict what an action changes (PETS).

Chua et al. 2018 (arXiv 1805.12114). Torch-free: read by the command line before a model is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The networks and what they are fed.

    `members`: networks that differ in their first weights alone. `num_layers` counts linear maps,
    the head's included. `observation_size`: only the first entries of an observation are seen and
    predicted; None takes all. `bound_weight`: of the term that draws the learned bounds of the
    log-variance together (0.01 as published, on the sum over members of twice the loss).
    """

    members: int = 5
    width: int = 200
    num_layers: int = 5
    observation_size: int | None = None
    bound_weight: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.members <= 1024:
            raise UsageError(f"members: {self.members} is not in 1..1024")
        if not 1 <= self.num_layers <= 64 or not 1 <= self.width <= 16_384:
            raise UsageError(
                f"width: {self.width} with {self.num_layers} layers is not in 1..16384 and 1..64"
            )
        if not 0.0 <= self.bound_weight < math.inf:
            raise UsageError(f"bound_weight: {self.bound_weight} is negative or not finite")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Nothing: a model of dynamics does not act."""
