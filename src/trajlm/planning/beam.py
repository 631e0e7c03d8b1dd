"""Beam search over tokens: expand, score, keep; batched over environments.

It sees a `TokenModel`, a schedule of slots and a scorer, and knows nothing of observations and
rewards. Two searches: candidates drawn from the model and kept by a score (offline RL in Janner et
al. 2021, algorithm 1), and the likeliest sequences (imitation). Ties go to the earlier candidate.

Legend: N environments, P beams of each, C candidates of each, R rows, V tokens, S tokens of a plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trajlm.core.errors import CheckpointError
from trajlm.core.seeding import uniform
from trajlm.nn.sampling import Filter, draw
from trajlm.planning.tokens import TokenModel

Draws = Callable[[int, int, int], Tensor]
"""(plan step, slot, rows of an environment) -> uniform draws (N, rows) in (0, 1)."""


def keyed_draws(
    seeds: np.ndarray, steps: np.ndarray, *, slots: int, stream: int = 0, device: torch.device
) -> Draws:
    """Draws keyed by (seed, step) of each environment (N,), plan step, slot and row, whoever asks for
    them. `slots`: more than any slot's number; `stream`: the first of the streams they take."""

    def draws(depth: int, slot: int, rows: int) -> Tensor:
        drawn = uniform(seeds, steps, lanes=rows, stream=stream + depth * slots + slot)
        return torch.from_numpy(drawn).to(device)

    return draws


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One token of the schedule. `index`: its place in a transition.

    `allowed`: tokens 0.. that may be chosen; those above are no candidates. `ends`: a prediction of
    a token above them ends the row's future (an absorbing end).
    """

    index: int
    keep: Filter
    allowed: int
    watched: bool = False
    ends: bool = False


class Scorer(Protocol):
    """What rows are kept by. Its memory is a tensor (R, K) that the search carries along."""

    def initial(self, rows: int, *, like: Tensor) -> Tensor: ...

    def __call__(self, depth: int, memory: Tensor, seen: Transition) -> tuple[Tensor, Tensor]:
        """The new memory (R, K) and the scores (R,) after transition `depth` of the plan."""
        ...


@dataclass(frozen=True, kw_only=True)
class Transition:
    """What a search knows of a row's newest transition.

    `tokens` (R, D') of its slots from the current position on, in the schedule's order;
    `previous` (R, D): the last D tokens of the whole sequence. `watched`: by slot, the
    log-probabilities (R, V) its token was chosen from. `alive` (R,) bool: no end was predicted.
    """

    previous: Tensor
    watched: dict[int, Tensor]
    alive: Tensor


@dataclass(frozen=True, kw_only=True)
class Plans:
    """Beams, best first. `tokens` (N, P, S) without the prefix; `scores` (N, P); `alive` (N, P).

    `depth`: transitions planned, less than asked for where the time ran out or all agreed.
    """

    tokens: Tensor
    scores: Tensor
    alive: Tensor
    depth: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Tensor:
        """(N, S)."""
        return self.tokens[:, 0]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a search may end before its horizon. Off by default."""

    seconds: float | None = None
    agreed_tokens: int | None = None
    """Stop where all beams of all environments share these first tokens."""


def scored_search(
    model: TokenModel,
    prefix: Tensor,
    *,
    schedule: Sequence[Slot],
    rest: Sequence[Slot],
    horizon: int,
    beam_width: int,
    num_samples: int,
    scorer: Scorer,
    draws: Draws,
    goal: Tensor | None = None,
    limits: Limits | None = None,
    suggestion: Tensor | None = None,
) -> Plans:
    """The plans with the best scores, drawn from the model.

    `prefix` (N, L) ends within a transition; `schedule` are the slots from there to the
    transition's end, `rest` those of the next transition up to the same place. A plan is `horizon`
    times `schedule`, with `rest` between. `suggestion` (N, K): the first K tokens of the last
    candidate of each environment, instead of drawn ones: those of one transition, or of a whole plan
    where there is one candidate.

    Raises `CheckpointError` where the model's predictions are not numbers.
    """
    limits, started = limits or Limits(), time.perf_counter()
    logits = model.prefill(prefix, goal=goal)
    rows = _Rows(
        model=model,
        prefix=prefix,
        draws=draws,
        suggestion=suggestion,
        logits=logits,
        tokens=prefix.new_empty(len(prefix), 0),
        memory=scorer.initial(len(prefix), like=logits),
        scores=logits.new_zeros(len(prefix)),
        alive=torch.ones(len(prefix), dtype=torch.bool, device=prefix.device),
    )
    while True:
        # As published: `beam_width` rows from the first step on, each `num_samples` times.
        copies = num_samples if rows.depth else beam_width * num_samples
        rows.expand(copies)
        seen = rows.act(schedule, rest)
        rows.memory, rows.scores = scorer(rows.depth, rows.memory, seen)
        keep = min(beam_width, rows.per_env)
        rows.select(best_rows(rows.scores, environments=len(prefix), keep=keep))
        rows.depth += 1
        if rows.depth == horizon or _over(limits, started, rows.depth, rows.tokens, len(prefix)):
            return rows.plans()
        rows.predict(rest)


@dataclass(kw_only=True)
class _Rows:
    """The rows of a search as it grows: `logits` (R, V) of the next token, `tokens` (R, S') planned so
    far, the scorer's `memory` (R, K), `scores` (R,), `alive` (R,). `depth`: transitions planned."""

    model: TokenModel
    prefix: Tensor
    draws: Draws
    suggestion: Tensor | None
    logits: Tensor
    tokens: Tensor
    memory: Tensor
    scores: Tensor
    alive: Tensor
    depth: int = 0

    @property
    def per_env(self) -> int:
        return len(self.tokens) // len(self.prefix)

    def expand(self, copies: int) -> None:
        self.model.expand(copies)
        self.logits, self.tokens, self.memory, self.alive = (
            part.repeat_interleave(copies, dim=0)
            for part in (self.logits, self.tokens, self.memory, self.alive)
        )

    def select(self, rows: Tensor) -> None:
        self.model.select(rows)
        self.tokens, self.memory, self.alive, self.scores = (
            part[rows] for part in (self.tokens, self.memory, self.alive, self.scores)
        )

    def append(self, slot: Slot) -> None:
        """The next token of each row, chosen from the logits."""
        uniforms = None
        if not slot.keep.greedy:
            uniforms = self.draws(self.depth, slot.index, self.per_env).flatten()
        chosen = choose(self.logits, slot, uniforms)
        chosen = _suggested(chosen, self.suggestion, self.tokens.shape[1], self.per_env)
        self.tokens = torch.cat([self.tokens, chosen[:, None]], dim=1)

    def step(self) -> None:
        """The logits after the newest token."""
        self.logits = self.model.step(self.tokens[:, -1])

    def act(self, schedule: Sequence[Slot], rest: Sequence[Slot]) -> Transition:
        """The tokens of `schedule`. What is scored after the last one needs no logits."""
        watched: dict[int, Tensor] = {}
        for place, slot in enumerate(schedule):
            if place:
                self.step()
            if slot.watched:
                watched[slot.index] = torch.log_softmax(self.logits, dim=-1)
            self.append(slot)
        previous = _tail(self.prefix, self.tokens, schedule, rest)
        return Transition(previous=previous, watched=watched, alive=self.alive)

    def predict(self, rest: Sequence[Slot]) -> None:
        """The tokens of `rest`, and the logits after them."""
        for slot in rest:
            self.step()
            if slot.ends:
                self.alive = self.alive & (self.logits.argmax(-1) < slot.allowed)
            self.append(slot)
        self.step()

    def plans(self) -> Plans:
        count, beams = len(self.prefix), self.per_env
        return Plans(
            tokens=self.tokens.view(count, beams, -1),
            scores=self.scores.view(count, beams),
            alive=self.alive.view(count, beams),
            depth=self.depth,
        )


def likelihood_search(
    model: TokenModel,
    prefix: Tensor,
    *,
    slots: Sequence[Slot],
    beam_width: int,
    goal: Tensor | None = None,
) -> Plans:
    """The likeliest continuations of `prefix` (N, L) by the tokens of `slots`.

    The width fills up from what candidates there are: one row at first, then as many as there are
    tokens, up to `beam_width`. Scores are summed log-probabilities. Tokens that are not `allowed`
    have none; a filter's `top_k` and `cdf` leave tokens out, as published.
    """
    count = len(prefix)
    logits = model.prefill(prefix, goal=goal)
    tokens = prefix.new_empty(count, 0)
    totals = logits.new_zeros(count)
    per_env = 1
    for place, slot in enumerate(slots):
        if place:
            logits = model.step(tokens[:, -1])
        candidates = filtered(logits, slot)
        values = candidates.shape[-1]
        sums = (totals[:, None] + candidates).view(count, per_env * values)
        refuse_nan(sums)
        possible = int((sums > -torch.inf).sum(1).min())
        keep = max(1, min(beam_width, possible))
        totals, places = stable_top(sums, keep)
        rows = torch.arange(count, device=prefix.device)[:, None] * per_env + places // values
        totals, rows = totals.flatten(), rows.flatten()
        model.select(rows)
        chosen = (places % values).flatten()
        tokens = torch.cat([tokens[rows], chosen[:, None]], dim=1)
        per_env = keep
    alive = torch.ones(count, per_env, dtype=torch.bool, device=prefix.device)
    scores = totals.view(count, per_env)
    return Plans(tokens=tokens.view(count, per_env, -1), scores=scores, alive=alive, depth=0)


def choose(logits: Tensor, slot: Slot, uniforms: Tensor | None) -> Tensor:
    """(R, V) -> tokens (R,), below `slot.allowed`."""
    allowed = logits[:, : slot.allowed]
    if slot.keep.greedy:
        return allowed.argmax(-1)
    assert uniforms is not None
    return draw(allowed, slot.keep, uniforms)


def filtered(logits: Tensor, slot: Slot) -> Tensor:
    """(R, V) -> (R, allowed): log-probabilities as a likelihood search counts them.

    A filter leaves tokens out and shares their probability among those that stay, as published.
    """
    temperature = slot.keep.temperature or 1.0
    scaled = torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
    scaled = scaled[:, : slot.allowed]
    if slot.keep.top_k is None and slot.keep.cdf is None:
        return scaled
    ordered, order = torch.softmax(scaled, dim=-1).sort(dim=-1, stable=True)
    left_out = torch.zeros_like(ordered, dtype=torch.bool)
    if slot.keep.cdf is not None:
        left_out = ordered.cumsum(-1) <= slot.keep.cdf
    if slot.keep.top_k is not None:
        left_out[:, : -slot.keep.top_k] = True
    left_out[:, -1] = False
    kept = scaled.masked_fill(torch.zeros_like(left_out).scatter(1, order, left_out), -torch.inf)
    return torch.log_softmax(kept, dim=-1)


def best_rows(scores: Tensor, *, environments: int, keep: int) -> Tensor:
    """The rows (N * keep,) with the best scores of each environment, best first."""
    refuse_nan(scores)
    per_env = scores.view(environments, -1)
    _, places = stable_top(per_env, keep)
    starts = torch.arange(environments, device=scores.device) * per_env.shape[1]
    return (starts[:, None] + places).flatten()


def stable_top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row (N, K), largest first; of equal ones the earlier.

    Values are compared in whole steps of eps^0.75: which of two like plans comes first must not depend
    on the order in which a processor's matrix product adds up.
    """
    step = torch.finfo(values.dtype).eps ** 0.75
    order = (values / step).round().argsort(dim=-1, descending=True, stable=True)
    places = order[:, :count]
    return values.gather(1, places), places


def refuse_nan(scores: Tensor) -> None:
    if bool(torch.isnan(scores).any()):
        raise CheckpointError("the model's predictions are not numbers (NaN); it cannot plan")


def _suggested(chosen: Tensor, suggestion: Tensor | None, place: int, per_env: int) -> Tensor:
    """The last row of each environment begins as suggested."""
    if suggestion is None or place >= suggestion.shape[1]:
        return chosen
    by_env = chosen.view(-1, per_env).clone()
    by_env[:, -1] = suggestion[:, place]
    return by_env.flatten()


def _tail(prefix: Tensor, tokens: Tensor, schedule: Sequence[Slot], rest: Sequence[Slot]) -> Tensor:
    """The last whole transition of each row, (R, D)."""
    size = len(schedule) + len(rest)
    missing = size - tokens.shape[1]
    if missing <= 0:
        return tokens[:, -size:]
    before = prefix[:, prefix.shape[1] - missing :]
    return torch.cat([before.repeat_interleave(len(tokens) // len(prefix), dim=0), tokens], dim=1)


def _over(limits: Limits, started: float, depth: int, tokens: Tensor, count: int) -> bool:
    if limits.seconds is not None:
        spent = time.perf_counter() - started
        # Another transition takes as long as those before did.
        if spent * (depth + 1) / depth > limits.seconds:
            return True
    if limits.agreed_tokens is not None and tokens.shape[1] >= limits.agreed_tokens:
        first = tokens[:, : limits.agreed_tokens].view(count, -1, limits.agreed_tokens)
        return bool((first == first[:, :1]).all())
    return False
