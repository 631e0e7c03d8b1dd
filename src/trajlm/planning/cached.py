"""The cached token model: every token of every distinct history runs through the network once.

Keys and values lie in three places, so that what rows share is stored and multiplied once:
- the trunk (H, N, Tt, E): what all rows of an environment share, the context; scores against it are
  dense products;
- the beams (H, G, Tb, E): what is each beam's own since then;
- the samples (H, R, To, E): the tokens that copies of one beam have drawn, until some are kept.

Value tokens are hidden from every position, so their keys and values are never stored. When the window
slides, positions start anew and everything in sight is run again, exactly as the published crop has it,
each distinct history once (`tree.py`).

Legend: N environments, G beams of all, C copies of each, R = G x C rows, H heads, E = W / H, D slots,
T tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trajlm.planning.tokens import SlotNetwork
from trajlm.planning.tree import KeyValue, run_tree
from trajlm.planning.weights import LayerWeights
from trajlm.planning.window import Window
from trajlm.planning.windowed import WindowedModel


class Store:
    """Keys and values of all layers side by side, (layers, H, rows, 2, T, E), with room for more."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0, 0, 0, 0, 0, 0)

    def reserve(self, rows: int, tokens: int, *, like: Tensor, layers: int, keep: int = 0) -> None:
        """Room for `tokens` of `rows`; of what was there the first `keep` tokens stay.
        `like` (H, ..., E)."""
        old = self.buffer
        fits = old.shape[2] == rows and old.shape[4] >= tokens
        if fits and old.dtype == like.dtype and old.device == like.device:
            return
        room = 2 * tokens if keep else tokens
        self.buffer = like.new_empty(layers, like.shape[0], rows, 2, room, like.shape[-1])
        if keep:
            self.buffer[..., :keep, :] = old[:, :, :rows, :, :keep]

    def places(self, rows: int, place: int) -> tuple[Tensor, ...]:
        """For each layer where the keys and values of one token of `rows` go, (H, rows, 2, E)."""
        return self.buffer[:, :, :rows, :, place].unbind(0)

    def views(self, rows: int, tokens: int) -> list[KeyValue]:
        """For each layer keys (H x rows, E, tokens) and values (H x rows, tokens, E)."""
        used = self.buffer[:, :, :rows, :, :tokens]
        used = used.flatten(1, 2)
        keys = used[:, :, 0].transpose(2, 3).unbind(0)
        return list(zip(keys, used[:, :, 1].unbind(0), strict=True))


class Samples:
    """Keys and values that copies have drawn, (T, layers, H, rows, 2, E).

    There are few tokens, so sums over them are faster than products of tiny matrices.
    """

    def __init__(self) -> None:
        self.buffer = torch.empty(0, 0, 0, 0, 0, 0)

    def reserve(self, rows: int, tokens: int, *, like: Tensor, layers: int) -> None:
        """Room for `tokens` of `rows`; what was there is gone. `like` (H, ?, E)."""
        shape = (tokens, layers, like.shape[0], rows, 2, like.shape[2])
        there = self.buffer
        same = there.dtype == like.dtype and there.device == like.device
        if there.shape[3] != rows or len(there) < tokens or not same:
            self.buffer = like.new_empty(shape)

    def views(self, tokens: int) -> list[KeyValue]:
        """For each layer keys and values (H, rows, tokens, E)."""
        used = self.buffer[:tokens].permute(1, 4, 2, 3, 0, 5)
        return [(part[0], part[1]) for part in used]


class CachedModel(WindowedModel):
    """A `TokenModel` that equals `RecomputeModel` and runs each token once.

    `dtype`: the numbers of the products by the blocks' weights, the network's own by default; all else
    is the network's, so that what is compared is not rounded.
    """

    def __init__(
        self, network: SlotNetwork, window: Window, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(network, window)
        blocks = network.transformer.blocks
        self.layers = [LayerWeights.of(block, dtype) for block in blocks]  # type: ignore[arg-type]
        self.trunk: list[KeyValue] = []
        self.beams, self.spare, self.samples = Store(), Store(), Samples()
        self.copies = 1
        self.own = self.drawn = 0
        self.kept: Tensor | None = None

    def expand(self, copies: int) -> None:
        if copies == 1:
            return
        self._settle()
        self.copies, self.drawn = copies, 0
        self.tokens = self.tokens.repeat_interleave(copies, dim=0)

    def select(self, rows: Tensor) -> None:
        self.tokens = self.tokens[rows]
        # Keys and values follow when they are needed: a sliding window does not need them.
        self.kept = rows if self.kept is None else self.kept[rows]

    def _run_window(self) -> Tensor:
        sight = self._in_sight()
        self.copies, self.kept, self.drawn = 1, None, 0
        self.own = sum(len(chunk.places) for chunk in sight.chunks[1:])
        own: list[KeyValue | None] = [None] * len(self.layers)
        if self.own:
            like, layers = self.layers[0].like, len(self.layers)
            self.beams.reserve(len(sight.rows), self._room(self.own), like=like, layers=layers)
            used = self.beams.buffer[..., : self.own, :]
            own = [(part[:, :, 0], part[:, :, 1]) for part in used]
        run = run_tree(
            self.layers, sight.chunks, sight.states, sight.rows, last=sight.last, own=own
        )
        self.trunk = [
            (key.transpose(2, 3).flatten(0, 1), value.flatten(0, 1)) for key, value in run.trunk
        ]
        return run.hidden

    def _run_token(self, tokens: Tensor, place: int) -> Tensor:
        if self.kept is not None or (self.copies > 1 and self.drawn == self.slots):
            self._settle()
        rows, sampling = len(tokens), self.copies > 1
        slot = place % self.slots
        stored = slot != self.network.layout.value
        x = self.network.embed_slot(tokens, slot, place)
        if stored:
            free = self._places(rows)
        own = self.beams.views(rows // self.copies, self.own) if self.own else []
        drawn = self.samples.views(self.drawn) if sampling and self.drawn else []
        for layer, weights in enumerate(self.layers):
            mixed = weights.project(x)
            if stored:
                free[layer].copy_(mixed[:, :, 1:])
            values = self._attend(
                mixed,
                self.trunk[layer],
                own[layer] if own else None,
                drawn[layer] if drawn else None,
            )
            x = weights.finish(x, values)
        return x

    def _places(self, rows: int) -> tuple[Tensor, ...]:
        """For each layer where a new token's keys and values go, (H, R, 2, E); it is counted."""
        like, layers = self.layers[0].like, len(self.layers)
        if self.copies > 1:
            if self.drawn == 0:
                self.samples.reserve(rows, self.slots, like=like, layers=layers)
            self.drawn += 1
            return self.samples.buffer[self.drawn - 1].unbind(0)
        room = max(self.own + 1, 2 * self.slots)
        self.beams.reserve(rows, room, like=like, layers=layers, keep=self.own)
        self.own += 1
        return self.beams.places(rows, self.own - 1)

    def _attend(
        self, mixed: Tensor, trunk: KeyValue, own: KeyValue | None, drawn: KeyValue | None
    ) -> Tensor:
        """Queries in (H, R, 3, E) over trunk, beams and samples -> (H, R, E)."""
        heads, rows, _, depth = mixed.shape
        query = mixed[:, :, 0]
        by_env = (heads * self.environments, rows // self.environments, -1)
        by_beam = (heads * rows // self.copies, self.copies, -1)
        shared = trunk[1].shape[1]
        scores = []
        if shared:
            scores.append(torch.bmm(query.view(by_env), trunk[0]).view(heads, rows, -1))
        if own is not None:
            scores.append(torch.bmm(query.view(by_beam), own[0]).view(heads, rows, -1))
        if drawn is not None:
            scores.append((query[:, :, None] * drawn[0]).sum(-1))
        weights = torch.softmax(scores[0] if len(scores) == 1 else torch.cat(scores, -1), dim=-1)
        first = shared + (0 if own is None else own[1].shape[1])
        parts = []
        if own is not None:
            parts.append(torch.bmm(weights[:, :, shared:first].view(by_beam), own[1]))
        if shared:
            parts.append(torch.bmm(weights[:, :, :shared].view(by_env), trunk[1]))
        if drawn is not None:
            parts.append((weights[:, :, first:, None] * drawn[1]).sum(2))
        total = parts[0].view(heads, rows, depth)
        for part in parts[1:]:
            total.add_(part.view(heads, rows, depth))
        return total

    def _settle(self) -> None:
        """Make each kept row a beam: its beam's keys and values with those of its own samples."""
        if self.kept is None and self.copies == 1:
            return
        kept = self.kept
        if kept is None:
            kept = torch.arange(len(self.tokens), device=self.tokens.device)
        groups = kept // self.copies
        drawn = self.drawn if self.copies > 1 else 0
        total = self.own + drawn
        if total:
            old, samples, new = self.beams.buffer, self.samples.buffer, self.spare
            like, layers = self.layers[0].like, len(self.layers)
            new.reserve(len(kept), self._room(total), like=like, layers=layers)
            fresh = new.buffer
            if self.own:
                fresh[..., : self.own, :] = old[..., : self.own, :].index_select(2, groups)
            if drawn:
                own = samples[:drawn].index_select(3, kept).permute(1, 2, 3, 4, 0, 5)
                fresh[..., self.own : total, :] = own
            self.beams, self.spare = self.spare, self.beams
        self.own, self.drawn, self.copies, self.kept = total, 0, 1, None

    def _room(self, tokens: int) -> int:
        """For how many tokens a store with `tokens` is made: those of two transitions more, rounded
        up so that stores are made anew seldom."""
        return self.slots * (tokens // self.slots + 2)
