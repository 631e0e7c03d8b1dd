"""From hidden states to actions: the head is chosen by the spec.

Inside a model a bounded continuous action lives in [-1, 1]; `ActionScale` is the one place that
maps it to the environment's units and back. With bounds of -1 and 1, as in MuJoCo's bodies, that
is the identity and the model is the published one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trajlm.core.errors import UsageError
from trajlm.core.spec import Box, Space


class ActionScale(nn.Module):
    """Affine map between the action bounds and [-1, 1]; identity where there are none."""

    low: Tensor
    high: Tensor

    def __init__(self, space: Box) -> None:
        super().__init__()
        low = space.low if space.bounded and space.low is not None else (-1.0,) * space.size
        high = space.high if space.bounded and space.high is not None else (1.0,) * space.size
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))

    def to_unit(self, action: Tensor) -> Tensor:
        """Environment units -> [-1, 1]: (..., A) -> (..., A)."""
        return (action - self.low) * (2.0 / (self.high - self.low)) - 1.0

    def to_bounds(self, unit: Tensor) -> Tensor:
        """[-1, 1] -> environment units: (..., A) -> (..., A)."""
        return self.low + (unit + 1.0) * (0.5 * (self.high - self.low))


class ContinuousHead(nn.Module):
    """A linear map and, where the action is bounded, tanh: (..., D) -> (..., A) in [-1, 1]."""

    def __init__(self, space: Box, width: int) -> None:
        super().__init__()
        self.bounded = space.bounded
        self.linear = nn.Linear(width, space.size)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.linear(hidden)
        return torch.tanh(output) if self.bounded else output


def action_box(space: Space) -> Box:
    """The space as a Box. Raises `UsageError` for one that has no head yet."""
    if not isinstance(space, Box):
        raise UsageError(
            f"actions: {type(space).__name__} has no head in this version; Box actions have"
        )
    return space
