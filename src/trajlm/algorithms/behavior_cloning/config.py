"""Behaviour cloning: actions from observations alone, by a feed-forward network.

The baseline of Chen et al. 2021 (arXiv 2106.01345). Torch-free: read by the command line before a model is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The network and what it is fed.

    `frames`: K, the observations laid side by side; 1 is the newest alone. `num_layers` counts
    linear maps, the head's included.
    """

    frames: int = 1
    width: int = 256
    num_layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 1024:
            raise UsageError(f"frames: {self.frames} is not in 1..1024")
        if not 1 <= self.num_layers <= 64 or not 1 <= self.width <= 16_384:
            raise UsageError(
                f"width: {self.width} with {self.num_layers} layers is not in 1..16384 and 1..64"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout: {self.dropout} is not in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How it acts. It is asked for nothing.

    `temperature`: 0 takes the likeliest of discrete actions, above it they are drawn (1: as the
    model believes).
    """

    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature: {self.temperature} is negative or not finite")
