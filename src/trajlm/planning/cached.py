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
    """Keys (rows, H, E, T) and values (rows, H, T, E) of one layer, in buffers with room for more.

    Keys lie across, as scores multiply by them: twice as fast for one query a row.
    """

    def __init__(self) -> None:
        self.key = self.value = torch.empty(0, 0, 0, 0)

    def reserve(self, rows: int, tokens: int, *, like: Tensor, keep: int = 0) -> None:
        """Room for `tokens` of `rows`; of what was there the first `keep` tokens stay.
        `like` (?, H, E)."""
        there = self.value
        fits = len(there) >= rows and there.shape[2] >= tokens and there.dtype == like.dtype
        if fits and there.device == like.device:
            return
        heads, depth, room = like.shape[1], like.shape[2], 2 * tokens if keep else tokens
        old = self.key, self.value
        self.key = like.new_empty(rows, heads, depth, room)
        self.value = like.new_empty(rows, heads, room, depth)
        if keep:
            self.key[..., :keep] = old[0][:rows, ..., :keep]
            self.value[:, :, :keep] = old[1][:rows, :, :keep]

    def put(self, place: int, key: Tensor, value: Tensor) -> None:
        """(rows, H, E) at one place."""
        self.key[: len(key), :, :, place] = key
        self.value[: len(value), :, place] = value

    def views(self, rows: int, tokens: int) -> KeyValue:
        """(rows, H, E, tokens) and (rows, H, tokens, E)."""
        return self.key[:rows, ..., :tokens], self.value[:rows, :, :tokens]


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
        self.trunk = [(key.transpose(2, 3).contiguous(), value.contiguous()) for key, value in run.trunk]
        self.own = self.drawn = 0
        self.copies, self.kept = 1, None
        for store, own in zip(self.beams, run.own, strict=True):
            if own is not None:
                self.own = own[0].shape[2]
                store.reserve(len(rows), self._room(self.own), like=own[0][:, :, 0])
                key, value = store.views(len(rows), self.own)
                key.copy_(own[0].transpose(2, 3))
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
        room = max(before + 1, 2 * self.slots)
        for layer, weights in enumerate(self.layers):
            mixed = weights.project(x)
            if stored:
                stores[layer].reserve(len(tokens), room, like=mixed[:, :, 1], keep=before)
                stores[layer].put(before, mixed[:, :, 1], mixed[:, :, 2])
            x = weights.finish(x, self._attend(layer, mixed, fresh=int(stored)))
        if stored and sampling:
            self.drawn += 1
        elif stored:
            self.own += 1
        return x

    def _attend(self, layer: int, mixed: Tensor, *, fresh: int) -> Tensor:
        """Queries in (R, H, 3, E) over trunk, beams and samples -> (R, W). `fresh`: tokens just put.

        Products are of flat batches and strided views: small ones cost what is done around them.
        """
        rows, heads, _, depth = mixed.shape
        groups, sampling = rows // self.copies, self.copies > 1
        own = self.own if sampling else self.own + fresh
        drawn = self.drawn + fresh if sampling else 0
        trunk_key, trunk_value = self.trunk[layer]
        shared = trunk_key.shape[3]
        shape = (groups, self.copies, heads)
        single = mixed.view(rows * heads, 3, depth)[:, :1]  # (R x H, 1, E)
        scores = []
        if shared:
            by_env = self._by_environment(mixed[:, :, 0])
            scores.append(self._by_row(torch.bmm(by_env, trunk_key.flatten(0, 1)), shape))
        if own:
            key, value = (part.flatten(0, 1) for part in self.beams[layer].views(groups, own))
            by_beam = single if not sampling else _by_beam(mixed[:, :, 0], self.copies)
            scores.append(_of_beams(torch.bmm(by_beam, key), shape))
        if drawn:
            drawn_key, drawn_value = (
                part.flatten(0, 1) for part in self.samples[layer].views(rows, drawn)
            )
            scores.append(torch.bmm(single, drawn_key).view(*shape, drawn))
        weights = torch.softmax(scores[0] if len(scores) == 1 else torch.cat(scores, -1), dim=-1)
        parts = []
        if shared:
            part = weights.reshape(rows, heads, -1)[..., :shared]
            out = torch.bmm(self._by_environment(part), trunk_value.flatten(0, 1))
            parts.append(self._by_row(out, shape))
        if own:
            if sampling:
                part = _by_beam(weights[..., shared : shared + own].flatten(0, 1), self.copies)
            else:
                part = weights.view(rows * heads, 1, -1)[..., shared:]
            parts.append(_of_beams(torch.bmm(part, value), shape))
        if drawn:
            part = weights.view(rows * heads, 1, -1)[..., shared + own :]
            parts.append(torch.bmm(part, drawn_value).view(*shape, depth))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total.reshape(rows, heads * depth)

    def _by_environment(self, x: Tensor) -> Tensor:
        """(R, H, A) -> (N x H, R / N, A)."""
        count = self.environments
        if count == 1:
            return x.transpose(0, 1)
        return x.view(count, -1, *x.shape[1:]).transpose(1, 2).reshape(-1, len(x) // count, x.shape[2])

    def _by_row(self, x: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """(N x H, R / N, A) -> (G, C, H, A)."""
        by_env = x.view(self.environments, -1, *x.shape[1:]).transpose(1, 2)
        if self.environments == 1:
            by_env = by_env[0]
        return by_env.reshape(*shape, x.shape[2])

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
                like = (samples if drawn else old).value[:, :, 0]
                new.reserve(len(kept), self._room(total), like=like)
                key, value = new.views(len(kept), total)
                if self.own:
                    key[..., : self.own] = old.key[..., : self.own][groups]
                    value[:, :, : self.own] = old.value[:, :, : self.own][groups]
                if drawn:
                    key[..., self.own :] = samples.key[..., :drawn][kept]
                    value[:, :, self.own :] = samples.value[:, :, :drawn][kept]
                self.beams[layer], self.spare[layer] = new, old
        self.own, self.drawn, self.copies, self.kept = total, 0, 1, None

    def _room(self, tokens: int) -> int:
        """For how many tokens a store with `tokens` is made: those of two transitions more, rounded
        up so that stores are made anew seldom."""
        return self.slots * (tokens // self.slots + 2)


def _by_beam(x: Tensor, copies: int) -> Tensor:
    """(R, H, A) -> (G x H, C, A)."""
    return x.view(-1, copies, *x.shape[1:]).transpose(1, 2).reshape(-1, copies, x.shape[2])


def _of_beams(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(G x H, C, A) -> (G, C, H, A)."""
    groups, copies, heads = shape
    return x.view(groups, heads, copies, x.shape[2]).transpose(1, 2)
