"""Implicit Q-learning: values by expectiles, actions by their advantage (Kostrikov et al. 2021).

arXiv 2110.06169. Torch-free: read by the command line before a model is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The networks, their targets, and what is done to rewards.

    `width`, `num_layers`: of each network; the linear map to the output counts. `dropout`: in the
    policy's network. `normalize`: observations by the data's mean and deviation; the authors leave
    them as they are. `discount`: of rewards. `expectile`: of the actions' values that a state's
    value is; 0.5 is their mean, towards 1 their maximum. `temperature`: what an advantage is
    multiplied by before the exponential that weighs its action; 0 weighs all alike.
    `largest_weight`: that weight is cut off there. `target_rate`: the share of the critics that
    their target takes on after each update.
    `reward_scaling`: "return_range" divides rewards by the best return less the worst, times 1000;
    `reward_shift` is added after that. What the critic says outside is in the data's own units,
    but for the shift.
    `without_next`: where the dataset lacks the observation after an episode's last step and a time
    limit ended it, "refuse" the dataset or "drop" those steps.
    """

    width: int = 256
    num_layers: int = 3
    dropout: float = 0.0
    normalize: bool = True
    discount: float = 0.99
    expectile: float = 0.7
    temperature: float = 3.0
    largest_weight: float = 100.0
    target_rate: float = 0.005
    reward_scaling: Literal["none", "return_range"] = "none"
    reward_shift: float = 0.0
    without_next: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        if not 1 <= self.num_layers <= 64 or not 1 <= self.width <= 16_384:
            raise UsageError(
                f"width: {self.width} with {self.num_layers} layers is not in 1..16384 and 1..64"
            )
        for name in ("dropout", "discount"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(f"{name}: {getattr(self, name)} is not in [0, 1)")
        if not 0.0 < self.expectile < 1.0:
            raise UsageError(f"expectile: {self.expectile} is not in (0, 1)")
        if not 0.0 < self.target_rate <= 1.0:
            raise UsageError(f"target_rate: {self.target_rate} is not in (0, 1]")
        if not 0.0 <= self.temperature < math.inf:
            raise UsageError(f"temperature: {self.temperature} is negative or not finite")
        if not 0.0 < self.largest_weight < math.inf:
            raise UsageError(f"largest_weight: {self.largest_weight} is not positive and finite")
        if not math.isfinite(self.reward_shift):
            raise UsageError(f"reward_shift: {self.reward_shift} is not finite")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How it acts. It is asked for nothing.

    `temperature`: 0 takes the likeliest action; above it actions are drawn (1: as the model
    believes), discrete ones from softer logits, real ones with a deviation so many times as large.
    """

    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < math.inf:
            raise UsageError(f"temperature: {self.temperature} is negative or not finite")
