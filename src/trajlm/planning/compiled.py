"""The token model whose passes are compiled code (`kernels.c`): an option, on the CPU.

Keys and values of every token lie once in a pool, and each row has a list of the slots it sees. So
copying rows, keeping some and sharing ancestors are changes of lists; a pass reads what rows share from
the processor's cache. A window that slides is run again as a tree, all its tokens in one pass.

Legend: N environments, R rows, M tokens of a pass, L layers, D slots of a transition, T tokens seen,
W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trajlm.core.errors import UsageError
from trajlm.nn.transformer import Block
from trajlm.planning import kernels
from trajlm.planning.tokens import SlotNetwork
from trajlm.planning.tree import Chunk
from trajlm.planning.window import Window
from trajlm.planning.windowed import WindowedModel

NOWHERE = -1
"""The slot of a token that nothing will see."""


class Pool:
    """Keys and values of tokens, (L, slots, 2, W), filled from the first slot on."""

    def __init__(self, layers: int, width: int, dtype: torch.dtype) -> None:
        self.buffer = torch.empty(layers, 0, 2, width, dtype=dtype)
        self.used = 0

    def take(self, count: int) -> Tensor:
        """`count` further slots (int32), with room for them."""
        first, self.used = self.used, self.used + count
        if self.used > self.buffer.shape[1]:
            layers, _, sides, width = self.buffer.shape
            wider = self.buffer.new_empty(layers, 2 * self.used, sides, width)
            wider[:, :first] = self.buffer[:, :first]
            self.buffer = wider
        return torch.arange(first, self.used, dtype=torch.int32)

    def keep(self, seen: Tensor) -> Tensor:
        """Only the slots that `seen` (R, T) names, side by side; `seen` with their new places."""
        slots: Tensor
        places: Tensor
        slots, places = torch.unique(seen, return_inverse=True)
        self.used = len(slots)
        self.buffer[:, : self.used] = self.buffer[:, slots]
        return places.to(torch.int32)


class CompiledModel(WindowedModel):
    """A `TokenModel` that equals `RecomputeModel`, in the network's own numbers.

    Raises `UsageError` where the network is not on the CPU, in half precision or of another activation
    than gelu, where another `dtype` is asked for, or nothing can be compiled.
    """

    def __init__(
        self, network: SlotNetwork, window: Window, dtype: torch.dtype | None = None
    ) -> None:
        own, config = network.position, network.transformer.config
        _refuse(network, dtype)
        super().__init__(network, window)
        blocks: Sequence[Block] = list(network.transformer.blocks)  # type: ignore[arg-type]
        self.epsilon = config.layer_norm_epsilon
        self.weights = torch.stack([_packed(block) for block in blocks])
        self.library = kernels.library(
            width=config.width,
            heads=config.num_heads,
            hidden=config.mlp_width or 4 * config.width,
            dtype=own.dtype,
        )
        self.pool = Pool(len(blocks), config.width, own.dtype)
        self.seen = torch.empty(0, 0, dtype=torch.int32)

    def expand(self, copies: int) -> None:
        self.tokens = self.tokens.repeat_interleave(copies, dim=0)
        self.seen = self.seen.repeat_interleave(copies, dim=0)

    def select(self, rows: Tensor) -> None:
        self.tokens, self.seen = self.tokens[rows], self.seen[rows]

    def _run_token(self, tokens: Tensor, place: int) -> Tensor:
        slot = place % self.slots
        into = torch.full((len(tokens),), NOWHERE, dtype=torch.int32)
        if slot != self.network.layout.value:
            if self.pool.used > self.seen.numel():  # what rows that were dropped had seen goes
                self.seen = self.pool.keep(self.seen)
            into = self.pool.take(len(tokens))
            self.seen = torch.cat([self.seen, into[:, None]], dim=1)
        counts = torch.full_like(into, self.seen.shape[1])
        x = self.network.embed_slot(tokens, slot, place)
        return self._run(x, into, self.seen, counts, apart=True)

    def _run_window(self) -> Tensor:
        sight = self._in_sight()
        shapes = [(len(state), state.shape[1]) for state in sight.states]
        self.pool.used = 0
        into = self.pool.take(sum(nodes * size for nodes, size in shapes))
        paths = _paths(sight.chunks, shapes, into)
        self.seen = paths[-1][sight.rows]
        x = torch.cat([state.flatten(0, 1) for state in sight.states])
        seen, counts = _lists(paths, [size for _, size in shapes])
        if sight.last is None:
            return self._run(x, into, seen, counts).view(*shapes[0], -1)[:, -1]
        rows, wanted = len(sight.last), len(x)
        hidden = self._run(
            torch.cat([x, sight.last]),
            torch.cat([into, into.new_full((rows,), NOWHERE)]),
            torch.cat([seen, self.seen]),
            torch.cat([counts, counts.new_full((rows,), self.seen.shape[1])]),
            wanted=wanted,
        )
        return hidden[wanted:]

    def _run(
        self,
        x: Tensor,
        into: Tensor,
        seen: Tensor,
        counts: Tensor,
        *,
        wanted: int = 0,
        apart: bool = False,
    ) -> Tensor:
        """Embedded tokens (M, W) through all layers. Token m sees `seen` (M, T) up to `counts` (M,) and
        goes `into` (M,) a slot; before `wanted` no output is. `apart`: none sees another of these."""
        x, seen = x.contiguous(), seen.contiguous()
        rows, longest = seen.shape
        threads = torch.get_num_threads()
        scratch = x.new_empty(self.library.scratch_of(rows, longest, threads))
        self.library.run(
            *(x.data_ptr(), into.data_ptr(), seen.data_ptr(), counts.data_ptr()),
            *(
                rows,
                longest,
                wanted,
                apart,
                len(self.weights),
                self.weights.data_ptr(),
                self.epsilon,
            ),
            *(self.pool.buffer.data_ptr(), self.pool.buffer.shape[1], scratch.data_ptr(), threads),
        )
        return x


def _refuse(network: SlotNetwork, dtype: torch.dtype | None) -> None:
    own = network.position
    if own.device.type != "cpu":
        raise UsageError(f"kernels: compiled ones are for the CPU, not {own.device.type}")
    if (dtype or own.dtype) != own.dtype or own.dtype not in kernels.NAMES:
        raise UsageError("kernels: compiled ones are not for bf16; leave out policy.precision")
    if any(block.activation is not functional.gelu for block in network.transformer.blocks):
        raise UsageError("kernels: compiled ones know no other activation than gelu")


def _packed(block: Block) -> Tensor:
    """A block's weights in the order of kernels.c's `Layer`, flat. Queries' hold attention's scale."""
    linear = block.attention.input
    width = linear.in_features
    scale = torch.ones_like(linear.bias)
    scale[:width] = (width // block.attention.num_heads) ** -0.5
    parts = [
        *(block.norm_attention.weight, block.norm_attention.bias),
        *_panels(linear.weight * scale[:, None], linear.bias * scale),
        *_panels(block.attention.output.weight, block.attention.output.bias),
        *(block.norm_mlp.weight, block.norm_mlp.bias),
        *_panels(block.mlp_input.weight, block.mlp_input.bias),
        *_panels(block.mlp_output.weight, block.mlp_output.bias),
    ]
    return torch.cat([part.detach().flatten() for part in parts])


def _panels(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer's weight (A, B) as (panels, B, 64), and its bias, both filled up with zeros."""
    missing = -len(bias) % kernels.PANEL
    weight = functional.pad(weight.detach(), (0, 0, 0, missing))
    panels = weight.unflatten(0, (-1, kernels.PANEL)).transpose(1, 2)
    return panels, functional.pad(bias.detach(), (0, missing))


def _paths(
    chunks: Sequence[Chunk], shapes: Sequence[tuple[int, int]], into: Tensor
) -> list[Tensor]:
    """For each chunk of n nodes the slots of their histories, (n, T) with their own at the end."""
    paths: list[Tensor] = []
    begin = 0
    for chunk, (nodes, size) in zip(chunks, shapes, strict=True):
        own = into[begin : begin + nodes * size].view(nodes, size)
        begin += nodes * size
        paths.append(torch.cat([paths[-1][chunk.parents], own], dim=1) if paths else own)
    return paths


def _lists(paths: Sequence[Tensor], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What each token of the chunks sees, (M, T), and how much of it counts, (M,)."""
    longest = paths[-1].shape[1]
    seen, counts = [], []
    for path, size in zip(paths, sizes, strict=True):
        full = functional.pad(path, (0, longest - path.shape[1]))
        seen.append(full.repeat_interleave(size, dim=0))
        ends = torch.arange(path.shape[1] - size + 1, path.shape[1] + 1, dtype=torch.int32)
        counts.append(ends.repeat(len(path)))
    return torch.cat(seen), torch.cat(counts)
