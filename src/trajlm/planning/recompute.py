"""The uncached token model: every step runs the whole window of every row again.

The reference that the cached one must equal; as published, but for the logits of the last token
alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trajlm.planning.tokens import SlotNetwork
from trajlm.planning.window import Window


class RecomputeModel:
    """A `TokenModel` without a memory but the tokens themselves, (R, L)."""

    def __init__(self, network: SlotNetwork, window: Window) -> None:
        self.network, self.window = network, window
        self.tokens = torch.empty(0, 0, dtype=torch.int64)
        self.goal: Tensor | None = None

    def prefill(self, tokens: Tensor, *, goal: Tensor | None = None) -> Tensor:
        self.tokens, self.goal = tokens, goal
        return self._next()

    def step(self, tokens: Tensor) -> Tensor:
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)
        return self._next()

    def expand(self, copies: int) -> None:
        self.tokens = self.tokens.repeat_interleave(copies, dim=0)
        if self.goal is not None:
            self.goal = self.goal.repeat_interleave(copies, dim=0)

    def select(self, rows: Tensor) -> None:
        self.tokens = self.tokens[rows]
        if self.goal is not None:
            self.goal = self.goal[rows]

    def _next(self) -> Tensor:
        length = self.tokens.shape[1]
        slots = self.network.layout.size
        seen = self.tokens[:, self.window.first(length) * slots :]
        hidden = self.network.hidden(seen, goal=self.goal)[:, -1]
        return self.network.head.at(hidden, (length - 1) % slots)
