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
from torch import Tensor

from trajlm.planning.weights import LayerWeights

KeyValue = tuple[Tensor, Tensor]
"""Keys and values, (H, n, T, E) each."""


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
        if len(first) == len(seen):  # all differ: in the order of the rows
            nodes = first = np.arange(len(seen))
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
    query: Tensor,
    spans: Sequence[slice],
    trunk: KeyValue,
    path: KeyValue | None,
    bias: Tensor | None,
) -> Tensor:
    """Queries (H, n, s, E) over the trunk of their environment (H, N, Tt, E) and a path of their own
    (H, n, T, E), whose last s tokens are the queries' own: (H, n x s, E).

    `spans`: the queries (of n x s) of each environment. `bias` (s, s) is added to the scores of the
    last s tokens; None where a single query sees all of its path.
    """
    heads, nodes, size, depth = query.shape
    shared = trunk[0].shape[2]
    flat = query.flatten(1, 2)
    scores = []
    if shared:
        parts = [
            torch.bmm(flat[:, span], trunk[0][:, number].transpose(1, 2))
            for number, span in enumerate(spans)
        ]
        scores.append(_joined(parts))
    if path is not None:
        own = torch.bmm(query.flatten(0, 1), path[0].flatten(0, 1).transpose(1, 2))
        if bias is not None:
            own[..., own.shape[2] - size :] += bias
        scores.append(own.view(heads, nodes * size, -1))
    weights = torch.softmax(scores[0] if len(scores) == 1 else torch.cat(scores, -1), dim=-1)
    mixed = None
    if path is not None:
        part = weights[..., shared:].view(heads * nodes, size, -1)
        mixed = torch.bmm(part, path[1].flatten(0, 1)).view(heads, nodes * size, depth)
    if shared:
        part = weights[..., :shared]
        parts = [torch.bmm(part[:, span], trunk[1][:, number]) for number, span in enumerate(spans)]
        out = _joined(parts)
        mixed = out if mixed is None else out.add_(mixed)
    assert mixed is not None
    return mixed


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def spans_of(counts: Sequence[int], size: int) -> list[slice]:
    """The tokens of each environment's nodes, `size` a node, among those of all."""
    ends = np.cumsum(counts) * size
    return [slice(int(e - n * size), int(e)) for n, e in zip(counts, ends, strict=True)]


def causal_bias(size: int, *, like: Tensor) -> Tensor:
    """(s, s): -inf above the diagonal."""
    return torch.full((size, size), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


@dataclass(frozen=True)
class TreeRun:
    """Of each layer the trunk (H, N, Tt, E); `hidden` (R, W) of each row's last token, before the
    last norm."""

    trunk: list[KeyValue]
    hidden: Tensor


def run_tree(
    layers: Sequence[LayerWeights],
    chunks: Sequence[Chunk],
    states: Sequence[Tensor],
    rows: Tensor,
    *,
    last: Tensor | None,
    own: Sequence[KeyValue | None],
) -> TreeRun:
    """Run embedded chunks (n, s, W) through the layers.

    `rows` (R,): each row's node in the last chunk. `last` (R, W): an embedded token after them that
    nothing sees, whose hidden state is wanted; None where that of the only chunk's last token is.
    `own`: for each layer where the rows' keys and values after the trunk go, (H, R, Tb, E) each; None
    where there are none.
    """
    environments = len(chunks[0].counts)
    shapes = [(state.shape[0], state.shape[1]) for state in states]
    spans = [spans_of(c.counts, shape[1]) for c, shape in zip(chunks, shapes, strict=True)]
    row_spans = spans_of([len(rows) // environments] * environments, 1)
    in_order = len(chunks[-1].parents) == len(rows)
    x = torch.cat([state.flatten(0, 1) for state in states])
    trunks: list[KeyValue] = []
    biases: list[Tensor | None] = []
    for number, weights in enumerate(layers):
        only_keys = number == len(layers) - 1 and last is not None
        mixed = weights.project_keys(x) if only_keys else weights.project(x)
        # (H, n, s, E) of queries (where they are wanted), keys and values.
        laid = [
            part.unflatten(1, shape).unbind(3)
            for part, shape in zip(mixed.split([n * s for n, s in shapes], 1), shapes, strict=True)
        ]
        trunk = laid[0][-2:]
        place = own[number]
        paths = _paths(chunks, laid, place if in_order else None)
        if place is not None and not in_order:
            path = paths[-1]
            assert path is not None
            for there, part in zip(place, path, strict=True):
                there.copy_(part.index_select(1, rows))
        trunks.append(trunk)
        if not only_keys:
            biases = biases or [causal_bias(s, like=mixed) if s > 1 else None for _, s in shapes]
            outs = []
            for index, (part, path) in enumerate(zip(laid, paths, strict=True)):
                if not part[0].shape[2]:
                    continue
                if path is None:  # the trunk sees itself alone
                    outs.append(attend(part[0], [], _nothing(trunk), trunk, biases[index]))
                else:
                    outs.append(attend(part[0], spans[index], trunk, path, biases[index]))
            x = weights.finish(x, _joined(outs))
        if last is not None:
            asked = weights.project(last)[:, :, :1]
            last = weights.finish(last, attend(asked, row_spans, trunk, place, None))
    if last is None:
        last = x.view(*shapes[0], -1)[:, -1]
    return TreeRun(trunks, last)


def _paths(
    chunks: Sequence[Chunk], laid: Sequence[Sequence[Tensor]], final: KeyValue | None
) -> list[KeyValue | None]:
    """For each chunk keys and values (H, n, T, E) from the first branch to its own last token; those
    of the last chunk are written into `final`, where given."""
    paths: list[KeyValue | None] = [None]
    for number in range(1, len(chunks)):
        before, parents = paths[-1], chunks[number].parents
        new = laid[number][-2:]
        heads, nodes, size, depth = new[0].shape
        length = 0 if before is None else before[0].shape[2]
        into = final if number == len(chunks) - 1 else None
        if into is None:
            shape = (heads, nodes, length + size, depth)
            into = (new[0].new_empty(shape), new[0].new_empty(shape))
        for side in (0, 1):
            if before is not None:
                into[side][:, :, :length] = before[side].index_select(1, parents)
            into[side][:, :, length:] = new[side]
        paths.append(into)
    return paths


def _nothing(like: KeyValue) -> KeyValue:
    return like[0][:, :, :0], like[1][:, :, :0]
