"""THE causal transformer: GPT-2's blocks (pre-norm, learned biases), for every model here.

It takes embedded tokens and gives hidden states; token embeddings, positions and heads belong to
the models. What is decided here:
- no window-relative position: models add what positions they want before;
- `outputs` names the positions whose hidden states are wanted. In the last layer queries, the
  output projection and the MLP run for those alone (keys and values still for all): the same
  numbers, a third of that layer's work for a Decision Transformer, a fiftieth when it acts;
- dropout sits where GPT-2 has it: on attention weights and on both residual branches.

Legend: B batch, T tokens, S output tokens, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trajlm.core.errors import UsageError
from trajlm.nn.attention import Attention
from trajlm.nn.dropout import dropout, dropout_add

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """`mlp_width` None means 4 x width; `residual_dropout` also acts on the embeddings.

    `initial_deviation`: of the initial weights. GPT-2's 0.02 suits widths of hundreds; far below, what
    is learned from products of features starts slowly, and 1 / sqrt(width) is better.
    """

    width: int = 128
    num_layers: int = 3
    num_heads: int = 1
    mlp_width: int | None = None
    activation: Literal["relu", "gelu"] = "relu"
    residual_dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initial_deviation: float = 0.02

    def __post_init__(self) -> None:
        for name in ("width", "num_layers", "num_heads"):
            if not 1 <= getattr(self, name) <= 16_384:
                raise UsageError(f"{name}: {getattr(self, name)} is not in 1..16384")
        if self.width % self.num_heads:
            raise UsageError(f"width: {self.width} is not a multiple of num_heads {self.num_heads}")
        for name in ("residual_dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(f"{name}: {getattr(self, name)} is not in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class AttentionMask:
    """Which keys a query sees: those at or before it, and of these

    the last `window` only (None: all), and only where `visible_keys` (B, T) is True (None: all).
    A query that sees no key gets a mean over keys, never NaN.
    """

    window: int | None = None
    visible_keys: Tensor | None = None

    def bias(
        self, tokens: int, outputs: slice, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """What is added to scores of `dtype`: (1 or B, 1, S, T), 0 or the dtype's lowest number by half."""
        keys = torch.arange(tokens, device=device)
        queries = keys[outputs][:, None]
        seen = keys[None, :] <= queries
        if self.window is not None:
            seen = seen & (keys[None, :] > queries - self.window)
        seen = seen[None, None]
        if self.visible_keys is not None:
            seen = seen & self.visible_keys[:, None, None, :]
        lowest = torch.finfo(dtype).min / 2  # room for what scores take away
        return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, lowest)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = config.mlp_width or 4 * config.width
        self.dropout = config.residual_dropout
        self.activation = ACTIVATIONS[config.activation]
        self.norm_attention = nn.LayerNorm(config.width, eps=config.layer_norm_epsilon)
        self.attention = Attention(config.width, config.num_heads, dropout=config.attention_dropout)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.layer_norm_epsilon)
        self.mlp_input = nn.Linear(config.width, hidden)
        self.mlp_output = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor, bias: Tensor, outputs: slice, maps: list[Tensor] | None) -> Tensor:
        """(B, T, D) -> (B, S, D). `maps` receives the attention weights (B, H, S, T)."""
        mixed = self.attention(self.norm_attention(x), bias, outputs, maps)
        x = dropout_add(x[:, outputs], mixed, self.dropout, training=self.training)
        hidden = self.activation(self.mlp_input(self.norm_mlp(x)))
        return dropout_add(x, self.mlp_output(hidden), self.dropout, training=self.training)


class Transformer(nn.Module):
    """A stack of blocks and a last layer norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        blocks = [Block(config) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_epsilon)
        self.apply(partial(initialize, deviation=config.initial_deviation))
        for block in blocks:
            # GPT-2: each residual branch starts smaller, so that the sum over layers does not grow.
            scale = config.initial_deviation / math.sqrt(2 * config.num_layers)
            nn.init.normal_(block.attention.output.weight, std=scale)
            nn.init.normal_(block.mlp_output.weight, std=scale)

    def forward(
        self,
        x: Tensor,
        *,
        mask: AttentionMask | None = None,
        outputs: slice | None = None,
        attention: list[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states of embedded tokens: (B, T, D) -> (B, S, D).

        `outputs`: the positions wanted, all by default. `attention`: a list that receives each
        layer's weights (B, H, T, T), the last one's (B, H, S, T).
        """
        mask = mask or AttentionMask()
        every = slice(None)
        bias = mask.bias(x.shape[1], every, dtype=_product_dtype(x), device=x.device)
        x = dropout(x, self.config.residual_dropout, training=self.training)
        for number, block in enumerate(self.blocks):
            last = number == len(self.blocks) - 1 and outputs is not None
            wanted = outputs if last and outputs is not None else every
            x = block(x, bias[:, :, wanted], wanted, attention)
        hidden: Tensor = self.norm(x)
        return hidden


def initialize(module: nn.Module, *, deviation: float = 0.02) -> None:
    """GPT-2's initial values: normal with deviation 0.02, biases zero. For `Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=deviation)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _product_dtype(x: Tensor) -> torch.dtype:
    """That of products of `x`, and so of the scores that a mask is added to."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
