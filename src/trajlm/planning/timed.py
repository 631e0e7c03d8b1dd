"""A token model that says what its time went into: measured from outside, the planner unchanged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, cuda

from trajlm.planning.tokens import SlotNetwork, TokenModel
from trajlm.planning.window import Window

PREFILL, BEAMS = "prefill", "copying and keeping beams"
TOKENS = {
    "observation": "observation tokens",
    "action": "action tokens",
    "reward": "reward and value tokens",
    "value": "reward and value tokens",
}


@dataclass
class Stopwatch:
    """Makes token models of `maker` that add to `seconds`, by part; a policy's `token_model`."""

    maker: Callable[..., TokenModel]
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(
        self, network: SlotNetwork, window: Window, dtype: torch.dtype | None = None
    ) -> TokenModel:
        kinds = [network.layout.kind(slot) for slot in range(network.layout.size)]
        return TimedModel(
            self.maker(network, window, dtype), [TOKENS[kind] for kind in kinds], self
        )

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if cuda.is_initialized():
            cuda.synchronize()
        spent = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + spent


class TimedModel:
    """A `TokenModel` around another. A step counts for the token it appends; `parts` (D,)."""

    def __init__(self, model: TokenModel, parts: list[str], watch: Stopwatch) -> None:
        self.model, self.parts, self.watch = model, parts, watch
        self.length = 0

    def prefill(self, tokens: Tensor, *, goal: Tensor | None = None) -> Tensor:
        self.length = tokens.shape[1]
        with self.watch.part(PREFILL):
            return self.model.prefill(tokens, goal=goal)

    def step(self, tokens: Tensor) -> Tensor:
        part = self.parts[self.length % len(self.parts)]
        self.length += 1
        with self.watch.part(part):
            return self.model.step(tokens)

    def expand(self, copies: int) -> None:
        with self.watch.part(BEAMS):
            self.model.expand(copies)

    def select(self, rows: Tensor) -> None:
        with self.watch.part(BEAMS):
            self.model.select(rows)
