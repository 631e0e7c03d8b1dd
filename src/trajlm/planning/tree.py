"""A window run as a tree: what rows share of their histories goes through the network once.

The tokens in sight are cut into chunks, longest first parts that rows share; each distinct history
is one node. Value tokens are hidden from every position and so are no part of it.

Legend: N environments, R rows, n nodes of a chunk, s its tokens, H heads, E = W / H, T tokens, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.nn.transformer import Block

KeyValue = tuple[Tensor, Tensor]
"""Keys and values, (n, H, T, E) each."""


@dataclass(frozen=True)
class LayerWeights:
    """A block's weights as a planner multiplies by them.

    Transposed and contiguous, which halves a product of few rows; the query's hold the scale of
    attention; queries, keys and values of a head lie side by side, so that (R x H, 1, E) of each is
    a view.
    """

    block: Block
    heads: int
    mixed: tuple[Tensor, Tensor]
    keys: tuple[Tensor, Tensor]
    output: tuple[Tensor, Tensor]
    mlp_input: tuple[Tensor, Tensor]
    mlp_output: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, block: Block) -> LayerWeights:
        heads = block.attention.num_heads
        weight, bias = block.attention.input.weight, block.attention.input.bias
        width = weight.shape[1]
        scale = torch.ones_like(bias)
        scale[:width] = (width // heads) ** -0.5

        def by_head(x: Tensor, first: int) -> Tensor:
            """(3 x W, ...) with the parts `first`.. of a head side by side."""
            parts = x.view(3, heads, width // heads, *x.shape[1:])[first:]
            return parts.transpose(0, 1).flatten(0, 2).t().contiguous()

        weight, bias = weight * scale[:, None], bias * scale
        return cls(
            block=block,
            heads=heads,
            mixed=(by_head(weight, 0), by_head(bias, 0)),
            keys=(by_head(weight, 1), by_head(bias, 1)),
            output=_transposed(block.attention.output),
            mlp_input=_transposed(block.mlp_input),
            mlp_output=_transposed(block.mlp_output),
        )

    def project(self, x: Tensor) -> Tensor:
        """(M, W) -> scaled queries, keys and values side by side, (M, H, 3, E)."""
        weight, bias = self.mixed
        mixed = torch.addmm(bias, self.block.norm_attention(x), weight)
        return mixed.view(len(x), self.heads, 3, -1)

    def project_keys(self, x: Tensor) -> Tensor:
        """Keys and values alone, (M, H, 2, E)."""
        weight, bias = self.keys
        mixed = torch.addmm(bias, self.block.norm_attention(x), weight)
        return mixed.view(len(x), self.heads, 2, -1)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Both residual branches, from what attention mixed: (M, W) -> (M, W)."""
        x = torch.addmm(self.output[1], mixed, self.output[0]).add_(x)
        weight, bias = self.mlp_input
        hidden = self.block.activation(torch.addmm(bias, self.block.norm_mlp(x), weight))
        return torch.addmm(self.mlp_output[1], hidden, self.mlp_output[0]).add_(x)


def _transposed(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    return linear.weight.T.contiguous(), linear.bias


@dataclass(frozen=True)
class Chunk:
    """The same places of n distinct histories. `tokens` (n, s) at `places` (s,) of the window;
    `parents` (n,): the node of the chunk before; `counts` (N,): nodes of each environment."""

    tokens: Tensor
    places: Tensor
    parents: Tensor
    counts: Sequence[int]


def tree_of(
    seen: Tensor, *, environments: int, slots: int, hidden: int, cuts: Sequence[int]
) -> tuple[list[Chunk], Tensor]:
    """The distinct histories of rows `seen` (R, T), environment by environment, and the node of each
    row in the last chunk (R,).

    Places of slot `hidden` are left out. Branches are looked for after each transition, and at the
    slots `cuts` within one. The first chunk has one node an environment (and maybe no token).
    """
    length = seen.shape[1]
    visible = [place for place in range(length) if place % slots != hidden]
    environment = np.repeat(np.arange(environments), len(seen) // environments)
    keyed = np.concatenate(
        [environment[:, None], seen[:, visible].numpy(force=True)], axis=1
    ).astype(">u2")
    # (tokens in sight, each row's node, a row of each node)
    levels = [(0, environment, np.arange(environments) * (len(seen) // environments))]
    for count in range(1, len(visible) + 1):
        after = visible[count - 1] + 1
        if count < len(visible) and after % slots not in (hidden, *cuts):
            continue
        nodes, first = distinct(keyed[:, : count + 1])
        if len(first) == len(levels[-1][2]):
            levels.pop()  # nothing branched: one chunk with what came before
        levels.append((count, nodes, first))
    if len(levels[0][2]) != environments:
        raise AssertionError("the first chunk must be shared")
    chunks, begin, before = [], 0, environment
    for count, nodes, first in levels:
        chunks.append(
            Chunk(
                tokens=seen[torch.from_numpy(first).to(seen.device)][:, visible[begin:count]],
                places=torch.tensor(visible[begin:count], dtype=torch.int64, device=seen.device),
                parents=torch.from_numpy(before[first]).to(seen.device),
                counts=np.bincount(environment[first], minlength=environments).tolist(),
            )
        )
        begin, before = count, nodes
    return chunks, torch.from_numpy(before).to(seen.device)


def distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which distinct row each row (R, K) is, counted in sorted order, and the first of each."""
    flat = np.ascontiguousarray(rows)
    keys = flat.view(np.dtype((np.void, flat.shape[1] * flat.itemsize)))[:, 0]
    _, first, nodes = np.unique(keys, return_index=True, return_inverse=True)
    return nodes.reshape(-1), first


def attend(
    query: Tensor, counts: Sequence[int], trunk: KeyValue, path: KeyValue | None, *, causal: int
) -> Tensor:
    """Queries (n, s, H, E) over the trunk of their environment (N, H, Tt, E) and a path of their own
    (n, H, T, E), whose last `causal` tokens are the queries' own: (n, s, H x E)."""
    nodes, size, heads, _ = query.shape
    key, value = trunk
    shared = key.shape[2]
    parts = []
    if shared:
        parts.append(by_environment(query.transpose(1, 2), key.transpose(2, 3), counts))
    if path is not None:
        scores = torch.matmul(query.transpose(1, 2), path[0].transpose(2, 3))
        if causal > 1:
            scores[..., -causal:] += causal_bias(causal, like=scores)
        parts.append(scores)
    weights = torch.softmax(parts[0] if len(parts) == 1 else torch.cat(parts, -1), dim=-1)
    mixed = None
    if shared:
        mixed = by_environment(weights[..., :shared], value, counts)
    if path is not None:
        own = torch.matmul(weights[..., shared:], path[1])
        mixed = own if mixed is None else mixed + own
    assert mixed is not None
    return mixed.transpose(1, 2).reshape(nodes, size, -1)


def by_environment(x: Tensor, shared: Tensor, counts: Sequence[int]) -> Tensor:
    """(n, H, s, A) of nodes times (N, H, A, B) of their environments: (n, H, s, B), by dense products."""
    if len(set(counts)) == 1:
        count, environments = counts[0], len(counts)
        _, heads, size, depth = x.shape
        grouped = x.reshape(environments, count, heads, size, depth).transpose(1, 2)
        product = torch.matmul(grouped.reshape(environments, heads, count * size, depth), shared)
        wide = product.view(environments, heads, count, size, -1).transpose(1, 2)
        return wide.reshape(environments * count, heads, size, -1)
    parts = [
        by_environment(part, shared[number : number + 1], [len(part)])
        for number, part in enumerate(x.split(list(counts)))
        if len(part)
    ]
    return torch.cat(parts)


def causal_bias(size: int, *, like: Tensor) -> Tensor:
    """(s, s): -inf above the diagonal."""
    return torch.full((size, size), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


@dataclass(frozen=True)
class TreeRun:
    """Of each layer the trunk (N, H, Tt, E) and what the rows have of their own since (R, H, Tb, E),
    None where nothing; `hidden` (R, W) of each row's last token, before the last norm."""

    trunk: list[KeyValue]
    own: list[KeyValue | None]
    hidden: Tensor


def run_tree(
    layers: Sequence[LayerWeights],
    chunks: Sequence[Chunk],
    states: Sequence[Tensor],
    rows: Tensor,
    *,
    last: Tensor | None,
) -> TreeRun:
    """Run embedded chunks (n, s, W) through the layers.

    `rows` (R,): each row's node in the last chunk. `last` (R, W): an embedded token after them that
    nothing sees, whose hidden state is wanted; None where that of the only chunk's last token is.
    """
    shapes = [tuple(state.shape[:2]) for state in states]
    sizes = [n * s for n, s in shapes]
    x = torch.cat([state.flatten(0, 1) for state in states])
    tail = last
    trunks: list[KeyValue] = []
    owns: list[KeyValue | None] = []
    per_env = len(rows) // len(chunks[0].counts)
    for number, weights in enumerate(layers):
        final = number == len(layers) - 1
        if final and tail is not None:
            key, value = weights.project_keys(x).unbind(2)
            query = key[:0]
        else:
            query, key, value = weights.project(x).unbind(2)
        keys = [_heads(part, shape) for part, shape in zip(key.split(sizes), shapes, strict=True)]
        values = [_heads(part, shape) for part, shape in zip(value.split(sizes), shapes, strict=True)]
        trunk = (keys[0], values[0])
        paths = _paths(chunks, keys, values)
        own: KeyValue | None = None
        if paths[-1] is not None:
            own = (paths[-1][0][rows], paths[-1][1][rows])
        trunks.append(trunk)
        owns.append(own)
        if not final or tail is None:
            queries = query.split(sizes)
            mixed = []
            for chunk, part, shape, path in zip(chunks, queries, shapes, paths, strict=True):
                if shape[1] == 0:
                    mixed.append(part.flatten(1))
                    continue
                place = part.view(*shape, weights.heads, -1)
                out = (
                    attend(place, chunk.counts, _nothing(trunk), trunk, causal=shape[1])
                    if path is None
                    else attend(place, chunk.counts, trunk, path, causal=shape[1])
                )
                mixed.append(out.flatten(0, 1))
            x = weights.finish(x, torch.cat(mixed))
        if tail is not None:
            asked = weights.project(tail)[:, :, 0]
            counts = [per_env] * len(chunks[0].counts)
            out = attend(asked[:, None], counts, trunk, own, causal=0)
            tail = weights.finish(tail, out[:, 0])
    if tail is None:
        tail = x.view(*shapes[0], -1)[:, -1]
    return TreeRun(trunks, owns, tail)


def _paths(
    chunks: Sequence[Chunk], keys: Sequence[Tensor], values: Sequence[Tensor]
) -> list[KeyValue | None]:
    """For each chunk the keys and values from the first branch to its own last token."""
    paths: list[KeyValue | None] = [None]
    for number in range(1, len(chunks)):
        before, parents = paths[-1], chunks[number].parents
        if before is None:
            paths.append((keys[number], values[number]))
        else:
            paths.append(
                (
                    torch.cat([before[0][parents], keys[number]], dim=2),
                    torch.cat([before[1][parents], values[number]], dim=2),
                )
            )
    return paths


def _heads(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(n * s, H, E) -> (n, H, s, E)."""
    return x.view(*shape, *x.shape[1:]).transpose(1, 2)


def _nothing(like: KeyValue) -> KeyValue:
    return like[0][:, :, :0], like[1][:, :, :0]
