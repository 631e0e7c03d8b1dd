"""The cached token model: every token of every distinct history runs through the network once.

Keys and values lie in three places, so that what rows share is stored and multiplied once:
- the trunk (N, H, Tt, E): what all rows of an environment share, the context; scores against it are
  dense products;
- the beams (G, H, Tb, E): what is each beam's own since then;
- the samples (R, H, To, E): the tokens that copies of one beam have drawn, until some are kept.

Value tokens are hidden from every position, so their keys and values are never stored, and inside
a window they are not even run. When the window slides, positions start anew and everything in
sight is run again, exactly as the published crop has it, each distinct history once (`tree.py`).

Legend: N environments, G beams of all, C copies of each, R = G x C rows, H heads, E = W / H, D slots,
T tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trajlm.planning.tokens import SlotNetwork
from trajlm.planning.tree import KeyValue, LayerWeights, run_tree, tree_of
from trajlm.planning.window import Window


class Store:
    """Keys and values of one layer in buffers with room for more tokens."""

    def __init__(self) -> None:
        self.key = self.value = torch.empty(0, 0, 0, 0)

    def reserve(self, rows: int, tokens: int, *, like: Tensor, keep: int = 0) -> None:
        """Room for (rows, H, tokens, E); of what was there the first `keep` tokens stay.
        `like` (?, H, E)."""
        there = self.key
        fits = len(there) >= rows and there.shape[2] >= tokens and there.dtype == like.dtype
        if fits and there.device == like.device:
            return
        shape = (rows, like.shape[1], 2 * tokens if keep else tokens, like.shape[2])
        old = self.key, self.value
        self.key, self.value = like.new_empty(shape), like.new_empty(shape)
        if keep:
            self.key[:, :, :keep] = old[0][:rows, :, :keep]
            self.value[:, :, :keep] = old[1][:rows, :, :keep]

    def put(self, place: int, key: Tensor, value: Tensor) -> None:
        """(rows, H, E) at one place."""
        self.key[: len(key), :, place] = key
        self.value[: len(value), :, place] = value

    def views(self, rows: int, tokens: int) -> KeyValue:
        """(rows, H, tokens, E) each."""
        return self.key[:rows, :, :tokens], self.value[:rows, :, :tokens]


class CachedModel:
    """A `TokenModel` that equals `RecomputeModel` and runs each token once."""

    def __init__(self, network: SlotNetwork, window: Window) -> None:
        self.network, self.window = network, window
        self.slots = network.layout.size
        self.layers = [LayerWeights.of(block) for block in network.transformer.blocks]  # type: ignore[arg-type]
        self.trunk: list[KeyValue] = []
        self.beams = [Store() for _ in self.layers]
        self.spare = [Store() for _ in self.layers]
        self.samples = [Store() for _ in self.layers]
        self.tokens = torch.empty(0, 0, dtype=torch.int64)
        self.goal: Tensor | None = None
        self.environments = self.copies = 1
        self.start = self.own = self.drawn = 0
        self.kept: Tensor | None = None

    # ---- the contract -----------------------------------------------------------------------

    def prefill(self, tokens: Tensor, *, goal: Tensor | None = None) -> Tensor:
        self.tokens, self.goal, self.environments = tokens, goal, len(tokens)
        self.start = self.window.first(tokens.shape[1])
        return self._log_probabilities(self._run_window())

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

    def step(self, tokens: Tensor) -> Tensor:
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)
        length = self.tokens.shape[1]
        first = self.window.first(length)
        if first != self.start:
            self.start = first
            return self._log_probabilities(self._run_window())
        if self.kept is not None:
            self._settle()
        return self._log_probabilities(self._run_token(tokens, length - 1 - first * self.slots))

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        slot = (self.tokens.shape[1] - 1) % self.slots
        logits = self.network.head.at(self.network.transformer.norm(hidden), slot)
        # Reduced precision is for the products; what is compared is not rounded.
        return torch.log_softmax(logits.to(self.network.position.dtype), dim=-1)

    def _embed(self, tokens: Tensor, places: Tensor) -> Tensor:
        return self.network.embed(tokens, places % self.slots, places)

    # ---- a whole window ---------------------------------------------------------------------

    def _run_window(self) -> Tensor:
        """Run everything in sight anew; the hidden states (R, W) of the rows' last tokens."""
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
        run = run_tree(self.layers, chunks, states, rows, last=last)
        self.trunk = [(key.contiguous(), value.contiguous()) for key, value in run.trunk]
        self.own = self.drawn = 0
        self.copies, self.kept = 1, None
        for store, own in zip(self.beams, run.own, strict=True):
            if own is not None:
                self.own = own[0].shape[2]
                store.reserve(len(rows), self._room(self.own), like=own[0][:, :, 0])
                key, value = store.views(len(rows), self.own)
                key.copy_(own[0])
                value.copy_(own[1])
        return run.hidden

    # ---- one token a row --------------------------------------------------------------------

    def _run_token(self, tokens: Tensor, place: int) -> Tensor:
        """The hidden states (R, W) of one new token a row."""
        stored = place % self.slots != self.network.layout.value
        x = self._embed(tokens[:, None], torch.tensor([place], device=tokens.device))[:, 0]
        sampling = self.copies > 1
        before = self.drawn if sampling else self.own
        stores = self.samples if sampling else self.beams
        for layer, weights in enumerate(self.layers):
            query, key, value = weights.project(x)
            if stored:
                room = max(before + 1, 2 * self.slots)
                stores[layer].reserve(len(tokens), room, like=key, keep=before)
                stores[layer].put(before, key, value)
            x = weights.finish(x, self._attend(layer, query, fresh=int(stored)))
        if stored and sampling:
            self.drawn += 1
        elif stored:
            self.own += 1
        return x

    def _attend(self, layer: int, query: Tensor, *, fresh: int) -> Tensor:
        """(R, H, E) queries over trunk, beams and samples -> (R, W). `fresh`: tokens just put."""
        rows, heads, depth = query.shape
        copies, count = self.copies, self.environments
        groups, sampling = rows // copies, copies > 1
        own = self.own if sampling else self.own + fresh
        drawn = self.drawn + fresh if sampling else 0
        trunk_key, trunk_value = self.trunk[layer]
        shared = trunk_key.shape[2]
        own_key, own_value = self.beams[layer].views(groups, own)
        drawn_key, drawn_value = self.samples[layer].views(rows, drawn)
        parts = []
        if shared:
            by_env = query.view(count, rows // count, heads, depth).transpose(1, 2)
            scores = torch.matmul(by_env, trunk_key.transpose(2, 3))  # (N, H, R/N, Tt)
            parts.append(scores.transpose(1, 2).reshape(rows, heads, shared))
        if own:
            by_beam = query.view(groups, copies, heads, depth).transpose(1, 2)
            scores = torch.matmul(by_beam, own_key.transpose(2, 3))  # (G, H, C, Tb)
            parts.append(scores.transpose(1, 2).reshape(rows, heads, own))
        if drawn:
            parts.append((query[:, :, None] @ drawn_key.transpose(2, 3))[:, :, 0])
        weights = torch.softmax(parts[0] if len(parts) == 1 else torch.cat(parts, -1), dim=-1)
        mixed = []
        if shared:
            part = weights[..., :shared].reshape(count, rows // count, heads, shared)
            out = torch.matmul(part.transpose(1, 2), trunk_value)
            mixed.append(out.transpose(1, 2).reshape(rows, -1))
        if own:
            part = weights[..., shared : shared + own].reshape(groups, copies, heads, own)
            out = torch.matmul(part.transpose(1, 2), own_value)
            mixed.append(out.transpose(1, 2).reshape(rows, -1))
        if drawn:
            out = weights[:, :, None, shared + own :] @ drawn_value
            mixed.append(out.reshape(rows, -1))
        total = mixed[0]
        for part in mixed[1:]:
            total = total + part
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
            for layer in range(len(self.layers)):
                old, samples, new = self.beams[layer], self.samples[layer], self.spare[layer]
                like = (samples if drawn else old).key[:, :, 0]
                new.reserve(len(kept), self._room(total), like=like)
                for fresh, beams, own in zip(
                    new.views(len(kept), total), (old.key, old.value), (samples.key, samples.value),
                    strict=True,
                ):
                    if self.own:
                        fresh[:, :, : self.own] = beams[:, :, : self.own][groups]
                    if drawn:
                        fresh[:, :, self.own :] = own[:, :, :drawn][kept]
                self.beams[layer], self.spare[layer] = new, old
        self.own, self.drawn, self.copies, self.kept = total, 0, 1, None

    def _room(self, tokens: int) -> int:
        """For how many tokens a store with `tokens` is made: those of two transitions more, rounded
        up so that stores are made anew seldom."""
        return self.slots * (tokens // self.slots + 2)
