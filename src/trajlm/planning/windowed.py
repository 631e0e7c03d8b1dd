"""What token models with a memory share: the tokens so far, and running all in sight when they slide.

Legend: N environments, R rows, D slots of a transition, V tokens of a slot, n nodes of a chunk, s its
tokens, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajlm.planning.tokens import SlotNetwork
from trajlm.planning.tree import Chunk, tree_of
from trajlm.planning.window import Window


@dataclass(frozen=True, kw_only=True)
class Sight:
    """All tokens in sight, each distinct history once.

    `states`: of each of `chunks` its embedded tokens (n, s, W), goals before those of the first.
    `rows` (R,): each row's node of the last chunk. `last` (R, W): embedded tokens after them that no
    position sees; None where the newest token is one of the only chunk, whose nodes are the rows.
    """

    chunks: Sequence[Chunk]
    states: Sequence[Tensor]
    rows: Tensor
    last: Tensor | None


class WindowedModel(ABC):
    """A `TokenModel` that runs new tokens, and a window that slides as a whole.

    Value tokens are hidden from every position, so inside a window they are not even run.
    """

    def __init__(self, network: SlotNetwork, window: Window) -> None:
        self.network, self.window = network, window
        self.slots = network.layout.size
        self.tokens = torch.empty(0, 0, dtype=torch.int64)
        self.goal: Tensor | None = None
        self.environments, self.start = 1, 0

    def prefill(self, tokens: Tensor, *, goal: Tensor | None = None) -> Tensor:
        self.tokens, self.goal, self.environments = tokens, goal, len(tokens)
        self.start = self.window.first(tokens.shape[1])
        return self._logits(self._run_window())

    def step(self, tokens: Tensor) -> Tensor:
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)
        length = self.tokens.shape[1]
        first = self.window.first(length)
        if first != self.start:
            self.start = first
            return self._logits(self._run_window())
        return self._logits(self._run_token(tokens, length - 1 - first * self.slots))

    @abstractmethod
    def expand(self, copies: int) -> None: ...

    @abstractmethod
    def select(self, rows: Tensor) -> None: ...

    @abstractmethod
    def _run_window(self) -> Tensor:
        """Run everything in sight anew; the hidden states (R, W) of the rows' last tokens."""

    @abstractmethod
    def _run_token(self, tokens: Tensor, place: int) -> Tensor:
        """The hidden states (R, W) of one new token a row, at `place` of the window."""

    def _logits(self, hidden: Tensor) -> Tensor:
        slot = (self.tokens.shape[1] - 1) % self.slots
        return self.network.head.at(self.network.transformer.norm(hidden), slot)

    def _embed(self, tokens: Tensor, places: Tensor) -> Tensor:
        return self.network.embed(tokens, places % self.slots, places)

    def _in_sight(self) -> Sight:
        layout = self.network.layout
        seen = self.tokens[:, self.start * self.slots :]
        chunks, rows = tree_of(
            seen,
            environments=self.environments,
            slots=self.slots,
            hidden=layout.value,
            cuts=(layout.observation_size,),
        )
        states = [self._embed(chunk.tokens, chunk.places) for chunk in chunks]
        if self.goal is not None:
            states[0] = torch.cat([self.network.embed_goals(self.goal), states[0]], dim=1)
        last, place = None, seen.shape[1] - 1
        if place % self.slots == layout.value:
            last = self._embed(seen[:, -1:], torch.tensor([place], device=seen.device))[:, 0]
        elif len(rows) != self.environments:
            raise AssertionError("a window slides after whole transitions")
        return Sight(chunks=chunks, states=states, rows=rows, last=last)
