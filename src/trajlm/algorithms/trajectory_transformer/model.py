"""The Trajectory Transformer's model, as published, and its loss.

A transition is a row of tokens [observation, action, reward, value], each entry in bins of its own
(`nn/discretizer.py`); windows of T transitions are modelled token by token. Each slot has its own
rows of the embedding table and its own head; all stop tokens share one row. A value token is hidden
as a key from every position, its own included: it would tell the future. It is still embedded at
its own position, from which the next observation is predicted.

Deliberate differences from the published code, under `fidelity: corrected`:
- the mask stands at the token that is predicted, and the mean is over unmasked tokens;
- weights are by slot, whatever the length;
- stop tokens follow real terminals alone; what follows a time limit is masked;
- residual branches start smaller (GPT-2's initial values; minGPT's, as published, do not).

Legend: B batch, T transitions, D slots of a transition, L tokens, N bins, V = N + 1, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trajlm.algorithms.base import Algorithm, Loss, Prepared
from trajlm.algorithms.trajectory_transformer.config import Config, PolicyConfig
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Critic
from trajlm.core.seeding import counter_bits
from trajlm.core.spec import DataSpec
from trajlm.data.columns import value_to_go
from trajlm.data.store import Segment, TrajectoryStore
from trajlm.nn.discretizer import Discretizer, encode_rows, fit_bins
from trajlm.nn.heads import SlotHead
from trajlm.nn.ordered import order_bins
from trajlm.nn.slots import KINDS, Layout
from trajlm.nn.transformer import AttentionMask, Transformer, TransformerConfig, initialize
from trajlm.planning.rollout import TokenWorld
from trajlm.sequence.batch import SequenceBatch, WindowRequest

if TYPE_CHECKING:
    from trajlm.algorithms.trajectory_transformer.policy import TrajectoryTransformerPolicy

GOAL_STREAM = 0x60A1
ORDERED_EMBEDDING, ORDERED_HEAD = 0.1, 0.02
"""Deviations of ordered first weights."""


class Model(Algorithm):
    """See the module's docstring. Buffers: the bins' `edges` and `values`."""

    config: Config

    def __init__(self, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> None:
        super().__init__(config, spec)
        self.layout = layout_of(config, spec.observation, spec.action)
        slots, width = self.layout.size, config.width
        self.num_bins, self.stop = config.num_bins, config.num_bins
        self.discretizer = Discretizer(slots, config.num_bins)
        self.discretizer.fit(fitted, "bins")
        self.embed_token = nn.Embedding(config.num_bins * slots + 1, width)
        self.position = nn.Parameter(torch.zeros(self.block_size, width))
        if config.goal != "none":
            self.embed_goal = nn.Embedding(config.num_bins * self.goal_size, width)
        self.head = SlotHead(slots, config.num_bins + 1, width)
        self.apply(initialize)
        if config.first_weights == "ordered":
            self._order_bins()
        self.transformer = Transformer(
            TransformerConfig(
                width=width,
                num_layers=config.num_layers,
                num_heads=config.num_heads,
                activation="gelu",
                residual_dropout=config.dropout,
                attention_dropout=config.dropout,
            )
        )

    def _order_bins(self) -> None:
        """Not in the papers: a bin's neighbours begin as what it begins as."""
        bins = self.config.num_bins
        order_bins(self._by_entry(self.embed_token, self.layout.size), deviation=ORDERED_EMBEDDING)
        if self.config.goal != "none":
            order_bins(self._by_entry(self.embed_goal, self.goal_size), deviation=ORDERED_EMBEDDING)
        order_bins(self.head.weight.detach()[:, :bins], deviation=ORDERED_HEAD)

    def _by_entry(self, embedding: nn.Embedding, entries: int) -> Tensor:
        """(entries, N, W): a view of the weights, without those of the stop token."""
        rows = embedding.weight.detach()[: entries * self.config.num_bins]
        return rows.view(entries, self.config.num_bins, -1)

    @property
    def block_size(self) -> int:
        """L: tokens of a block, T x D - 1."""
        return self.config.transitions * self.layout.size - 1

    @property
    def goal_size(self) -> int:
        """The entries of a goal."""
        return goal_size(self.config, self.layout)

    @property
    def published_schedule(self) -> bool:
        """Whether the learning rate follows the authors' code."""
        return self.config.fidelity == "published"

    # ---- data -------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, config: Config, store: TrajectoryStore) -> Prepared:
        """Fits the bins and adds `tokens` (M, D), `terminals` (M,) and, with goals, `goals`."""
        store = store.finished
        layout = layout_of(config, store.observation_space, store.action_space)
        rows = [transition_rows(config, layout, segment) for segment in store.segments]
        chosen = [
            rows[number][np.repeat(_chosen(store, number), segment.lengths)]
            for number, segment in enumerate(store.segments)
        ]
        bins = fit_bins(
            np.concatenate(chosen),
            num_bins=config.num_bins,
            method=config.bins,
            integers=np.array(layout.integers),
            starts=np.array(layout.starts),
        )
        fitted = {f"bins/{name}": array for name, array in bins.items()}
        return Prepared(store=_tokenised(config, layout, store, rows, fitted), fitted=fitted)

    @classmethod
    def prepare_held_out(
        cls, config: Config, store: TrajectoryStore, fitted: Mapping[str, np.ndarray]
    ) -> TrajectoryStore:
        """Held-out episodes in the bins of the training episodes."""
        layout = layout_of(config, store.observation_space, store.action_space)
        rows = [transition_rows(config, layout, segment) for segment in store.segments]
        return _tokenised(config, layout, store, rows, fitted)

    @classmethod
    def build(cls, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> Self:
        return cls(config, spec, fitted)

    @classmethod
    def windows(cls, config: Config, spec: DataSpec) -> WindowRequest:
        goals = ("goals",) if config.goal != "none" else ()
        return WindowRequest(length=config.transitions, columns=("tokens", "terminals", *goals))

    # ---- loss -------------------------------------------------------------------------------

    def forward(self, batch: SequenceBatch) -> Loss:
        """Weighted cross-entropy of each token after the first, in nats (paper, section 3.2)."""
        tokens, valid = self._window(batch)
        targets, counted = tokens[:, 1:], valid
        goal = batch.columns["goals"][:, 0].long() if self.config.goal != "none" else None
        hidden = self.hidden(tokens[:, :-1], goal=goal)
        nats, logits = self.token_nats(hidden, targets)
        weights = self.slot_weights(targets.shape[1], like=nats)
        total = (nats * weights * counted).sum()
        if self.config.fidelity == "published":  # over masked tokens too
            loss = total / counted.numel()
        else:
            loss = total / counted.sum().clamp(min=1)
        return Loss(loss, {"loss": loss.detach()} | self._metrics(nats, logits, targets, counted))

    def _window(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """Tokens (B, T x D), stop tokens past an end, and which targets (B, T x D - 1) count."""
        real = batch.mask
        tokens = batch.columns["tokens"].long().masked_fill(~real[..., None], self.stop)
        slots = self.layout.size
        if self.config.fidelity == "published":
            steps = batch.timesteps[:, :1] + torch.arange(real.shape[1], device=real.device)
            # As published: masked past the time limit alone, one token early.
            counted = (steps < self.spec.horizon).repeat_interleave(slots, dim=1)[:, :-1]
        else:
            ended = (batch.columns["terminals"].bool() & real).any(dim=1, keepdim=True)
            counted = (real | ended).repeat_interleave(slots, dim=1)[:, 1:]
        return tokens.flatten(1), counted

    def token_nats(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy (B, L) of targets (B, L) and the logits (B, L, V)."""
        logits = self.logits(hidden)
        flat = functional.cross_entropy(
            logits.flatten(0, 1).float()
            if logits.dtype == torch.bfloat16
            else logits.flatten(0, 1),
            targets.flatten(),
            reduction="none",
        )
        return flat.view_as(targets), logits

    def slot_weights(self, tokens: int, *, like: Tensor) -> Tensor:
        """(L,) of the targets of `tokens` input tokens."""
        by_kind = {
            "observation": 1.0,
            "action": self.config.action_weight,
            "reward": self.config.reward_weight,
            "value": self.config.value_weight,
        }
        row = [by_kind[self.layout.kind(slot)] for slot in range(self.layout.size)]
        slots = torch.arange(1, tokens + 1, device=like.device) % self.layout.size
        return torch.tensor(row, dtype=like.dtype, device=like.device)[slots]

    def _metrics(
        self, nats: Tensor, logits: Tensor, targets: Tensor, counted: Tensor
    ) -> dict[str, Tensor]:
        """Nats of each kind of token; in evaluation, nats and accuracy of each slot."""
        with torch.no_grad():
            slots = self._by_slot(nats, counted)
            kinds = [self.layout.kind(slot) for slot in range(self.layout.size)]
            found = {
                f"{kind}_nats": torch.stack(
                    [s for s, k in zip(slots, kinds, strict=True) if k == kind]
                ).mean()
                for kind in KINDS
            }
            if self.training:
                return found
            right = self._by_slot((logits.argmax(-1) == targets).to(nats.dtype), counted)
            for name, slot_nats, accuracy in zip(self.layout.names, slots, right, strict=True):
                found |= {f"nats/{name}": slot_nats, f"accuracy/{name}": accuracy}
        return found

    def _by_slot(self, values: Tensor, counted: Tensor) -> Tensor:
        """Means (D,) of (B, L) values where they count; targets begin in slot 1."""
        weights = functional.pad(counted.to(values.dtype), (1, 0))
        padded = functional.pad(values, (1, 0)) * weights
        shape = (-1, self.layout.size)
        return padded.view(shape).sum(0) / weights.view(shape).sum(0).clamp_min(1.0)

    # ---- the network ------------------------------------------------------------------------

    def embed(self, tokens: Tensor, slots: Tensor, positions: Tensor) -> Tensor:
        """Tokens (..., L) in `slots` (L,) at `positions` (L,) of the block -> (..., L, W)."""
        rows = torch.where(
            tokens == self.stop, self.embed_token.num_embeddings - 1, tokens + slots * self.num_bins
        )
        embedded: Tensor = self.embed_token(rows)
        return embedded + self.position[positions]

    def embed_slot(self, tokens: Tensor, slot: int, position: int) -> Tensor:
        """Tokens (R,) of one slot at one position -> (R, W)."""
        rows = tokens + slot * self.num_bins
        last = self.embed_token.num_embeddings - 1
        rows = torch.where(tokens == self.stop, last, rows)
        return functional.embedding(rows, self.embed_token.weight) + self.position[position]

    def embed_goals(self, goal: Tensor) -> Tensor:
        """Goal tokens (B, entries of a goal) -> (B, entries of a goal, W), without positions."""
        slots = torch.arange(goal.shape[1], device=goal.device)
        embedded: Tensor = self.embed_goal(goal + slots * self.num_bins)
        return embedded

    def hidden(
        self,
        tokens: Tensor,
        *,
        goal: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of a block's first L tokens: (B, L) -> (B, L, W)."""
        count = tokens.shape[1]
        places = torch.arange(count, device=tokens.device)
        slots = places % self.layout.size
        x = self.embed(tokens, slots, places)
        visible = slots != self.layout.value
        before = 0
        if goal is not None:
            # The published mask of values is not moved on by the goal's length.
            before = goal.shape[1]
            x = torch.cat([self.embed_goals(goal), x], dim=1)
            visible = functional.pad(visible, (before, 0), value=True)
        mask = AttentionMask(visible_keys=visible[None])
        states: Tensor = self.transformer(x, mask=mask)
        return states[:, before:]

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the token after each: (B, L, W) -> (B, L, V)."""
        batch, count, width = hidden.shape
        missing = -count % self.layout.size
        padded = functional.pad(hidden, (0, 0, 0, missing)).view(-1, self.layout.size, width)
        by_slot: Tensor = self.head(padded).transpose(0, 1)
        return by_slot.reshape(batch, count + missing, -1)[:, :count]

    def policy(
        self, config: PolicyConfig | None = None, *, guide: Critic | None = None, **overrides: Any
    ) -> TrajectoryTransformerPolicy:
        """Plans with this model. `overrides` are fields of `PolicyConfig`."""
        from trajlm.algorithms.trajectory_transformer.policy import TrajectoryTransformerPolicy

        return TrajectoryTransformerPolicy.of(self, config or PolicyConfig(), guide, **overrides)

    def world_model(self, *, context: int | None = None) -> TokenWorld:
        """Predicts with this model; `context` transitions in sight, as many as fit where None. That of
        a model of 2 transitions is Markovian."""
        if self.config.goal != "none":
            raise UsageError("goal: a model that is asked for goals predicts by its policy alone")
        return TokenWorld(
            network=self.eval(),
            discretizer=self.discretizer,
            context=self.config.transitions - 1 if context is None else context,
        )

    def flops_per_step(self, batch_size: int) -> float:
        """Of one update: 6 a weight and token, and the scores of attention."""
        width, tokens = self.config.width, self.block_size
        weights = 12 * self.config.num_layers * width * width + width * (self.num_bins + 1)
        attention = 2 * self.config.num_layers * tokens * width
        return float(6.0 * (weights + attention) * batch_size * tokens)


def layout_of(config: Config, observation: Any, action: Any) -> Layout:
    """The slots of a transition. Raises `UsageError` where there are too many."""
    return Layout.of(observation, action, observation_size=config.observation_size)


def transition_rows(config: Config, layout: Layout, segment: Segment) -> np.ndarray:
    """All steps of a segment as real rows (M, D) float32."""
    lengths = segment.lengths
    steps = np.arange(int(lengths.sum()))
    if segment.has_last_observation:
        steps = steps + np.repeat(np.arange(len(lengths)), lengths)
    observations = {
        name: column[steps]
        for name, column in segment.columns.items()
        if name.split("/")[0] == "observations"
    }
    rewards = np.asarray(segment.columns["rewards"], np.float64).copy()
    if config.termination_penalty is not None:
        rewards[segment.offsets[1:][segment.terminated & (lengths > 0)] - 1] = (
            config.termination_penalty
        )
    # A time limit's end counts as 0 from there on, as published.
    values = value_to_go(rewards, segment.offsets, discount=config.discount)
    return np.concatenate(
        [
            layout.observation_rows(observations),
            layout.action_rows(segment.columns["actions"]),
            rewards[:, None].astype(np.float32),
            values[:, None].astype(np.float32),
        ],
        axis=1,
    )


def _tokenised(
    config: Config,
    layout: Layout,
    store: TrajectoryStore,
    rows: list[np.ndarray],
    fitted: Mapping[str, np.ndarray],
) -> TrajectoryStore:
    tokens = [encode_rows(part, fitted["bins/edges"]) for part in rows]
    terminals = []
    for segment in store.segments:
        ends = np.zeros(int(segment.lengths.sum()), np.uint8)
        ends[segment.offsets[1:][segment.terminated & (segment.lengths > 0)] - 1] = 1
        terminals.append(ends)
    store = store.with_column("tokens", tokens).with_column("terminals", terminals)
    if config.goal == "none":
        return store
    goals = [
        part[goal_steps(config, segment), : goal_size(config, layout)]
        for part, segment in zip(tokens, store.segments, strict=True)
    ]
    return store.with_column("goals", goals)


def goal_size(config: Config, layout: Layout) -> int:
    """The entries of an observation that make a goal. Raises `UsageError` where it has fewer."""
    size = layout.observation_size if config.goal_size is None else config.goal_size
    if not 1 <= size <= layout.observation_size:
        raise UsageError(f"goal_size: {size} is not in 1..{layout.observation_size}")
    return size


def goal_steps(config: Config, segment: Segment) -> np.ndarray:
    """(M,): the step whose observation is each step's goal.

    `last`: the episode's last, as published. `future`: drawn once, uniformly, from the steps after
    it (hindsight), so that a window's goal is a pure function of its start.
    """
    lengths = segment.lengths
    last = np.repeat(segment.offsets[1:] - 1, lengths)
    if config.goal == "last":
        return last
    steps = np.arange(len(last))
    ahead = (last - steps).clip(1).astype(np.uint64)
    drawn = (counter_bits(GOAL_STREAM, steps) % ahead).astype(np.int64)
    return np.asarray(np.minimum(steps + 1 + drawn, last))


def _chosen(store: TrajectoryStore, number: int) -> np.ndarray:
    """(E,) bool: which episodes of a segment are in the store's view."""
    chosen = np.zeros(len(store.segments[number].lengths), bool)
    chosen[store.index[store.index[:, 0] == number, 1]] = True
    return chosen
