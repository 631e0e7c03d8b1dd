"""From hidden states to actions: the head is chosen by the spec.

A head knows its kind of action whole: the loss of recorded actions and the choice of one. So no
algorithm asks what kind there is. Inside a model a bounded continuous action lives in [-1, 1];
`ActionScale` is the one place that maps it to the environment's units and back. With bounds of -1
and 1, as in MuJoCo's bodies, that is the identity and the model is the published one.

Legend: B batch, T time, N slots, D width, A action entries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trajlm.core.errors import UsageError
from trajlm.core.seeding import normal, uniform
from trajlm.core.spec import Box, Discrete, MultiDiscrete, Space

ACTION_STREAM = 0xAC7


class ActionHead(nn.Module, ABC):
    """Hidden states to actions in the environment's units."""

    @abstractmethod
    def loss(self, hidden: Tensor, actions: Tensor) -> Tensor:
        """(B, T, D), recorded actions (B, T, ...) -> (B, T), the mean over an action's entries."""

    @abstractmethod
    def choose(
        self, hidden: Tensor, *, temperature: float, seed: np.ndarray, step: np.ndarray
    ) -> Tensor:
        """(N, D) -> actions (N, ...): the likeliest at temperature 0, else drawn.

        `seed`, `step` (N,): the episode's seed and the count of its steps, which key each draw.
        Raises `UsageError` for a temperature where actions are not drawn.
        """


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


class ContinuousHead(ActionHead):
    """A linear map and, where the action is bounded, tanh; squared error in [-1, 1]."""

    def __init__(self, space: Box, width: int) -> None:
        super().__init__()
        self.shape, self.bounded = space.shape, space.bounded
        self.scale = ActionScale(space)
        self.linear = nn.Linear(width, space.size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., A) in [-1, 1]."""
        output: Tensor = self.linear(hidden)
        return torch.tanh(output) if self.bounded else output

    def loss(self, hidden: Tensor, actions: Tensor) -> Tensor:
        unit = self.scale.to_unit(actions.flatten(2))
        predicted: Tensor = self(hidden)
        return functional.mse_loss(predicted.float(), unit, reduction="none").mean(-1)

    def choose(
        self, hidden: Tensor, *, temperature: float, seed: np.ndarray, step: np.ndarray
    ) -> Tensor:
        if temperature > 0.0:
            raise UsageError("temperature: continuous actions are not drawn; leave it at 0")
        action = self.scale.to_bounds(self(hidden).float())
        return action.reshape(-1, *self.shape)


class GaussianHead(ActionHead):
    """A normal distribution around a `ContinuousHead`'s action, in [-1, 1] where it is bounded.

    Its deviation is learned, one for each entry, whatever the state (`log_std` (A,)). The loss is
    the negative log-likelihood in nats; a draw's deviation is multiplied by the temperature.
    """

    LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0

    def __init__(self, space: Box, width: int) -> None:
        super().__init__()
        self.middle = ContinuousHead(space, width)
        self.log_std = nn.Parameter(torch.zeros(space.size))

    def loss(self, hidden: Tensor, actions: Tensor) -> Tensor:
        unit = self.middle.scale.to_unit(actions.flatten(2))
        log_std = self.log_std.clamp(self.LOG_STD_LOW, self.LOG_STD_HIGH)
        scaled = (unit - self.middle(hidden).float()) / log_std.exp()
        nats: Tensor = 0.5 * scaled.square() + log_std + 0.5 * math.log(2 * math.pi)
        return nats.mean(-1)

    def choose(
        self, hidden: Tensor, *, temperature: float, seed: np.ndarray, step: np.ndarray
    ) -> Tensor:
        unit = self.middle(hidden).float()
        if temperature > 0.0:
            noise = normal(seed, step, lanes=unit.shape[-1], stream=ACTION_STREAM)
            std = self.log_std.clamp(self.LOG_STD_LOW, self.LOG_STD_HIGH).exp()
            unit = unit + temperature * std * torch.from_numpy(noise).to(unit)
        if self.middle.bounded:
            unit = unit.clamp(-1.0, 1.0)
        return self.middle.scale.to_bounds(unit).reshape(-1, *self.middle.shape)


class CategoricalHead(ActionHead):
    """Logits of every choice, entry by entry; cross-entropy, in nats."""

    def __init__(self, space: Discrete | MultiDiscrete, width: int) -> None:
        super().__init__()
        self.shape = space.shape
        self.sizes = (space.n,) if isinstance(space, Discrete) else space.nvec
        self.start = space.start if isinstance(space, Discrete) else 0
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """(..., D) -> the logits of each entry, (..., its number of choices)."""
        logits: Tensor = self.linear(hidden)
        return torch.split(logits.float(), list(self.sizes), dim=-1)

    def loss(self, hidden: Tensor, actions: Tensor) -> Tensor:
        entries = choices(actions, start=self.start, sizes=self.sizes, shape=self.shape)
        losses = [
            functional.cross_entropy(logits.flatten(0, 1), entry.flatten(), reduction="none")
            for logits, entry in zip(self(hidden), entries.unbind(-1), strict=True)
        ]
        return torch.stack(losses).mean(0).reshape(hidden.shape[:2])

    def choose(
        self, hidden: Tensor, *, temperature: float, seed: np.ndarray, step: np.ndarray
    ) -> Tensor:
        scores = self(hidden)
        if temperature > 0.0:
            # Gumbel's trick: the argmax of logits plus this noise is a draw from their softmax.
            draws = uniform(seed, step, lanes=sum(self.sizes), stream=ACTION_STREAM)
            noise = torch.from_numpy(-np.log(-np.log(draws))).to(hidden.device)
            parts = noise.split(self.sizes, dim=-1)
            scores = tuple(s / temperature + n for s, n in zip(scores, parts, strict=True))
        picked = torch.stack([score.argmax(-1) for score in scores], dim=-1) + self.start
        return picked.reshape(-1, *self.shape)


def action_head(space: Space, width: int) -> ActionHead:
    """The head of an action space. Raises `UsageError` for one that has none."""
    if isinstance(space, Box):
        return ContinuousHead(space, width)
    if isinstance(space, Discrete | MultiDiscrete):
        return CategoricalHead(space, width)
    raise UsageError(
        f"actions: {type(space).__name__} has no head in this version; "
        "Box, Discrete and MultiDiscrete have"
    )


def likelihood_head(space: Space, width: int) -> ActionHead:
    """A head whose loss is a negative log-likelihood, for losses that weigh actions by their worth."""
    return GaussianHead(space, width) if isinstance(space, Box) else action_head(space, width)


def choices(
    values: Tensor, *, start: int, sizes: tuple[int, ...], shape: tuple[int, ...]
) -> Tensor:
    """Integers of a Discrete or MultiDiscrete space counted from 0: (...) -> (..., entries).

    What lies outside, such as the zeros of padding where counting starts at 1, is moved inside: a
    mask leaves it out of every mean.
    """
    entries = values.long() if shape else values.long()[..., None]
    limits = torch.tensor(sizes, device=values.device) - 1
    return (entries - start).clamp_min(0).minimum(limits)


class SlotHead(nn.Module):
    """A bias-free linear map of its own for each slot of a transition (the published EinLinear).

    `weight` (D, V, W). The map of slot s reads the token in slot s and predicts the one after it.
    """

    def __init__(self, slots: int, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(slots, tokens, width))
        for slot in self.weight.detach():
            nn.init.kaiming_uniform_(slot, a=5**0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states of whole transitions (M, D, W), slot by slot -> logits (D, M, V)."""
        return torch.bmm(hidden.transpose(0, 1), self.weight.transpose(1, 2))

    def at(self, hidden: Tensor, slot: int) -> Tensor:
        """(R, W) of tokens in one slot -> (R, V)."""
        return functional.linear(hidden, self.weight[slot])
