"""What beam search asks of a model of tokens, and what a token model asks of a network.

Legend: N environments, R rows (sequences, those of one environment side by side, equally many
each), D slots of a transition, V tokens of a slot, W width.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from trajlm.nn.heads import SlotHead
from trajlm.nn.slots import Layout
from trajlm.nn.transformer import Transformer


class TokenModel(Protocol):
    """Logits of the next token of many growing sequences.

    Rows are kept in the order of their environments. After `prefill` there is a row an environment.
    """

    def prefill(self, tokens: Tensor, *, goal: Tensor | None = None) -> Tensor:
        """Start from (N, L) tokens; logits (N, V) of the next."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token (R,) to each row; logits (R, V) of the next."""
        ...

    def expand(self, copies: int) -> None:
        """Each row `copies` times, side by side."""
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (R',) alone; `rows` rise environment by environment, equally many
        each; within one, in any order and any number of times."""
        ...


class SlotNetwork(Protocol):
    """The parts of a transformer over slots that token models put together."""

    layout: Layout
    num_bins: int
    transformer: Transformer
    head: SlotHead

    @property
    def position(self) -> Tensor: ...

    @property
    def block_size(self) -> int: ...

    def embed(self, tokens: Tensor, slots: Tensor, positions: Tensor) -> Tensor: ...

    def embed_slot(self, tokens: Tensor, slot: int, position: int) -> Tensor: ...

    def embed_goals(self, goal: Tensor) -> Tensor: ...

    def hidden(self, tokens: Tensor, *, goal: Tensor | None = None) -> Tensor: ...
