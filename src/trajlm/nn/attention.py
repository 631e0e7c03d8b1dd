"""Causal self-attention with an explicit softmax, so that its weights can be dropped cheaply.

Long windows are attended block by block of queries, over no key that comes after the block. The
gradient is written by hand: autograd's pads, copies and adds what each block gives to keys and
values, which on a CPU takes as long as their products.

Legend: B batch, T tokens, S tokens whose output is wanted, D width, H heads, E = D / H, P parts of
a projection: queries, keys and values, or the last two; Q queries of a block, L its keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trajlm.nn.dropout import keep_factors

QUERY_BLOCK = 64
"""Queries attended at once in a causal window: the upper right of a long one is never computed."""


class Attention(nn.Module):
    def __init__(self, width: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.input = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor, outputs: slice, maps: list[Tensor] | None) -> Tensor:
        """(B, T, D) -> (B, S, D). `bias` (1 or B, 1, S, T), of the scores' dtype, is added to
        them; `maps` receives the attention weights (B, H, S, T)."""
        asked: Tensor | None = None
        if outputs == slice(None):
            parts = self._by_head(self.input(x))
        else:
            weight, offset, width = self.input.weight, self.input.bias, x.shape[-1]
            (asked,) = self._by_head(
                functional.linear(x[:, outputs], weight[:width], offset[:width])
            )
            parts = self._by_head(functional.linear(x, weight[width:], offset[width:]))
        given = parts, asked, bias, self.dropout if self.training else 0.0
        if torch.is_grad_enabled() and maps is None:
            mixed: Tensor = _Mix.apply(*given)  # type: ignore[no-untyped-call]
        else:
            mixed, blocks = mix(*given)
            if maps is not None:
                maps.append(self._whole(blocks, x.shape[1]))
        output: Tensor = self.output(self._by_token(mixed))
        return output

    def _by_head(self, projected: Tensor) -> Tensor:
        """(B, T, P * D) -> (P, B * H, T, E), dense."""
        width = self.output.in_features
        parts: Tensor = projected.unflatten(-1, (-1, self.num_heads, width // self.num_heads))
        return parts.permute(2, 0, 3, 1, 4).flatten(1, 2)

    def _by_token(self, mixed: Tensor) -> Tensor:
        """(B * H, S, E) -> (B, S, D)."""
        heads: Tensor = mixed.unflatten(0, (-1, self.num_heads))
        return heads.transpose(1, 2).flatten(2)

    def _whole(self, blocks: Sequence[Block], length: int) -> Tensor:
        """The weights of blocks as (B, H, S, T)."""
        rows = [functional.pad(b.weights.detach(), (0, length - b.keys.shape[1])) for b in blocks]
        whole: Tensor = torch.cat(rows, dim=1).unflatten(0, (-1, self.num_heads))
        return whole


class Block(NamedTuple):
    """Queries `first` to `stop` (B * H, Q, E) over keys and values (B * H, L, E): weights
    (B * H, Q, L), what dropout makes of them, and its factors, None without it."""

    first: int
    stop: int
    queries: Tensor
    keys: Tensor
    values: Tensor
    weights: Tensor
    dropped: Tensor
    factors: Tensor | None


def mix(
    parts: Tensor, asked: Tensor | None, bias: Tensor, probability: float
) -> tuple[Tensor, list[Block]]:
    """Values mixed by attention weights, of which each is dropped with the probability.

    `parts` (P, B * H, T, E); its first part are the queries, or `asked` (B * H, S, E). Gives
    (B * H, S, E), and the blocks.
    """
    queries, keys, values = parts[0] if asked is None else asked, parts[-2], parts[-1]
    scale, mixed, blocks = keys.shape[-1] ** -0.5, [], []
    spans = _spans(queries.shape[1], keys.shape[1])
    shapes = [(len(keys), stop - first, last) for first, stop, last in spans]
    dropout = _factors(shapes, probability, like=keys)
    for (first, stop, last), factors in zip(spans, dropout, strict=True):
        # Dense, for in bf16 each product would copy what is not.
        query = queries[:, first:stop].contiguous()
        key, value = keys[:, :last].contiguous(), values[:, :last].contiguous()
        scores = _biased(query @ key.mT, bias[:, 0, first:stop, :last], scale)
        weights = torch.softmax(scores, dim=-1)
        dropped = weights if factors is None else weights * factors
        mixed.append(dropped @ value)
        blocks.append(Block(first, stop, query, key, value, weights, dropped, factors))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1), blocks


def _factors(
    shapes: Sequence[tuple[int, int, int]], probability: float, *, like: Tensor
) -> list[Tensor | None]:
    """Dropout's factors of several shapes, drawn at once."""
    if not probability:
        return [None] * len(shapes)
    counts = [math.prod(shape) for shape in shapes]
    drawn = keep_factors(like.new_empty(sum(counts)), probability).split(counts)
    return [part.view(shape) for part, shape in zip(drawn, shapes, strict=True)]


def _biased(scores: Tensor, bias: Tensor, scale: float) -> Tensor:
    """scale * scores (B * H, Q, L) + bias (1 or B, Q, L)."""
    if len(bias) == 1:
        return torch.add(bias, scores, alpha=scale)
    by_head = scores.unflatten(0, (len(bias), -1))
    return torch.add(bias[:, None], by_head, alpha=scale).flatten(0, 1)


class _Mix(torch.autograd.Function):
    """`mix`, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, parts: Tensor, asked: Tensor | None, bias: Tensor, probability: float
    ) -> Tensor:
        mixed, blocks = mix(parts, asked, bias, probability)
        ctx.spans, ctx.num_parts = [block[:2] for block in blocks], len(parts)
        ctx.save_for_backward(*(tensor for block in blocks for tensor in block[2:]))
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors
        blocks = [Block(*span, *kept[6 * n : 6 * n + 6]) for n, span in enumerate(ctx.spans)]
        return *_gradients(ctx.num_parts, blocks, gradient), None, None


def _gradients(
    num_parts: int, blocks: Sequence[Block], gradient: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Of `mix` in its parts and in what is asked, from that in its result (B * H, S, E)."""
    keys = blocks[-1].keys  # all of them
    to_parts = keys.new_empty(num_parts, *keys.shape)
    to_asked = None if num_parts == 3 else torch.empty_like(gradient)
    to_queries = to_parts[0] if to_asked is None else to_asked
    for number, block in reversed(list(enumerate(blocks))):
        given = gradient[:, block.first : block.stop].contiguous()
        to_weights = given @ block.values.mT
        if block.factors is not None:
            to_weights.mul_(block.factors)
        scores = torch._softmax_backward_data(to_weights, block.weights, -1, to_weights.dtype)
        to_queries[:, block.first : block.stop] = scores @ block.keys
        if number == len(blocks) - 1:  # the others add to what it gives
            torch.bmm(scores.mT, block.queries, out=to_parts[-2])
            torch.bmm(block.dropped.mT, given, out=to_parts[-1])
        else:
            seen = slice(block.keys.shape[1])
            to_parts[-2, :, seen] += scores.mT @ block.queries
            to_parts[-1, :, seen] += block.dropped.mT @ given
    scale = keys.shape[-1] ** -0.5
    to_queries.mul_(scale)
    to_parts[-2].mul_(scale)
    return to_parts, to_asked


def _spans(queries: int, keys: int) -> list[tuple[int, int, int]]:
    """Blocks of queries, and where their keys end; one block where some queries are asked for."""
    if queries != keys:
        return [(0, queries, keys)]
    ends = [(first, min(first + QUERY_BLOCK, keys)) for first in range(0, keys, QUERY_BLOCK)]
    return [(first, stop, stop) for first, stop in ends]
