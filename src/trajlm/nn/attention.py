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
    """Causal self-attention of several heads."""

    def __init__(self, width: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.input = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor, outputs: slice, maps: list[Tensor] | None) -> Tensor:
        """(B, T, D) -> (B, S, D). `bias` (1 or B, 1, S, T), of the scores' dtype, is added to
        them and gets no gradient; `maps` receives the attention weights (B, H, S, T)."""
        asked: Tensor | None = None
        if outputs == slice(None):
            projected = self.input(x)
        else:
            weight, offset, width = self.input.weight, self.input.bias, x.shape[-1]
            asked = functional.linear(x[:, outputs], weight[:width], offset[:width])
            projected = functional.linear(x, weight[width:], offset[width:])
        probability = self.dropout if self.training else 0.0
        recorded = torch.is_grad_enabled()
        mixed = _Mix.apply(  # type: ignore[no-untyped-call]
            projected, asked, bias, self.num_heads, probability, recorded, maps
        )
        output: Tensor = self.output(mixed)
        return output


class _Block(NamedTuple):
    """Queries (B * H, Q, E) over keys and values (B * H, L, E): weights (B * H, Q, L), what dropout
    makes of them, and its factors, None without it."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    weights: Tensor
    dropped: Tensor
    factors: Tensor | None


class _Mix(torch.autograd.Function):
    """Values mixed by attention weights, of which each is dropped with a probability: (B, S, D).

    `projected` (B, T, P * D); queries are its first part, or `asked` (B, S, D). Differentiable once,
    in these two alone; what that needs is kept where it is `recorded`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        asked: Tensor | None,
        bias: Tensor,
        heads: int,
        probability: float,
        recorded: bool,
        maps: list[Tensor] | None,
    ) -> Tensor:
        parts = _by_head(projected, 3 if asked is None else 2, heads)
        queries = parts[0] if asked is None else _by_head(asked, 1, heads)[0]
        spans = _spans(queries.shape[1], parts.shape[2])
        shapes = [(parts.shape[1], stop - first, last) for first, stop, last in spans]
        dropout = _factors(shapes, probability, like=parts)
        recorded = recorded and any(ctx.needs_input_grad)
        blocks, mixed, seen = [], [], []
        for (first, stop, last), factors in zip(spans, dropout, strict=True):
            limits = bias[:, :, first:stop, :last]
            block = _attend(
                queries[:, first:stop], parts[-2:, :, :last], limits, factors, heads=heads
            )
            mixed.append(block.dropped @ block.values)
            if recorded:
                blocks.append(block)
            if maps is not None:
                seen.append(functional.pad(block.weights, (0, parts.shape[2] - last)))
        if maps is not None:
            maps.append(torch.cat(seen, dim=1).unflatten(0, (-1, heads)))
        ctx.heads, ctx.spans, ctx.parts = heads, spans, len(parts)
        ctx.save_for_backward(*(tensor for block in blocks for tensor in block))
        whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)
        return _by_token(whole[None], heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        size, kept = len(_Block._fields), ctx.saved_tensors
        blocks = [_Block(*kept[n : n + size]) for n in range(0, len(kept), size)]
        keys = blocks[-1].keys  # all of them
        to_parts = keys.new_empty(ctx.parts, *keys.shape)
        to_asked: Tensor | None = None
        if ctx.parts == 2:
            to_asked = keys.new_empty(1, len(keys), gradient.shape[1], keys.shape[-1])
        to_queries = to_parts[0] if to_asked is None else to_asked[0]
        given = gradient.unflatten(-1, (ctx.heads, -1))
        with torch.autocast(gradient.device.type, enabled=False):
            _gradients(blocks, ctx.spans, given, to_queries, to_parts[-2:])
        asked = None if to_asked is None else _by_token(to_asked, ctx.heads)
        return _by_token(to_parts, ctx.heads), asked, *[None] * 5


def _attend(
    queries: Tensor, pair: Tensor, bias: Tensor, factors: Tensor | None, *, heads: int
) -> _Block:
    """Queries (B * H, Q, E) over keys and values (2, B * H, L, E); `bias` (1 or B, 1, Q, L)."""
    keys, values = pair
    if queries.dtype.itemsize == 2:  # on a CPU each product would copy what is not dense
        queries, keys, values = (part.contiguous() for part in (queries, keys, values))
    scores = queries @ keys.mT
    limited = scores.unflatten(0, (-1, heads))
    torch.add(bias, limited, alpha=queries.shape[-1] ** -0.5, out=limited)
    # Autocast on CUDA would make it float32, beside which the other factors of products are not.
    weights = torch.softmax(scores, dim=-1, dtype=scores.dtype)
    dropped = weights if factors is None else weights * factors
    return _Block(queries, keys, values, weights, dropped, factors)


def _gradients(
    blocks: Sequence[_Block],
    spans: Sequence[tuple[int, int, int]],
    gradient: Tensor,
    to_queries: Tensor,
    to_pair: Tensor,
) -> None:
    """Write gradients in queries (B * H, S, E) and in keys and values (2, B * H, T, E), from that in
    the mixed values (B, S, H, E)."""
    for (first, stop, last), block in reversed(list(zip(spans, blocks, strict=True))):
        given = gradient[:, first:stop].transpose(1, 2).flatten(0, 1)
        to_weights = given @ block.values.mT
        if block.factors is not None:
            to_weights.mul_(block.factors)
        scores = torch._softmax_backward_data(to_weights, block.weights, -1, to_weights.dtype)
        to_queries[:, first:stop] = scores @ block.keys
        if block is blocks[-1]:  # the others add to what it gives
            torch.bmm(scores.mT, block.queries, out=to_pair[0])
            torch.bmm(block.dropped.mT, given, out=to_pair[1])
        else:
            to_pair[0, :, :last] += scores.mT @ block.queries
            to_pair[1, :, :last] += block.dropped.mT @ given
    scale = to_queries.shape[-1] ** -0.5
    to_queries.mul_(scale)
    to_pair[0].mul_(scale)


def _factors(
    shapes: Sequence[tuple[int, int, int]], probability: float, *, like: Tensor
) -> Sequence[Tensor | None]:
    """Dropout's factors of several shapes, drawn at once."""
    if not probability:
        return [None] * len(shapes)
    counts = [math.prod(shape) for shape in shapes]
    drawn = keep_factors(like.new_empty(sum(counts)), probability).split(counts)
    return [part.view(shape) for part, shape in zip(drawn, shapes, strict=True)]


def _spans(queries: int, keys: int) -> list[tuple[int, int, int]]:
    """Blocks of queries, and where their keys end; one block where some queries are asked for."""
    if queries != keys:
        return [(0, queries, keys)]
    ends = [(first, min(first + QUERY_BLOCK, keys)) for first in range(0, keys, QUERY_BLOCK)]
    return [(first, stop, stop) for first, stop in ends]


def _by_head(projected: Tensor, parts: int, heads: int) -> Tensor:
    """(B, T, P * D) -> (P, B * H, T, E)."""
    rows: Tensor = projected.unflatten(-1, (parts, heads, -1))
    return rows.permute(2, 0, 3, 1, 4).flatten(1, 2)


def _by_token(parts: Tensor, heads: int) -> Tensor:
    """(P, B * H, T, E) -> (B, T, P * D)."""
    rows: Tensor = parts.unflatten(1, (-1, heads))
    return rows.permute(1, 3, 0, 2, 4).flatten(2)
