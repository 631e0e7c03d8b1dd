"""Patterns of attention found by a score: Markovian, striated, action-smoothing.

A row of a map is a token that predicts the next one; what it looks at is counted by the time step and
the dimension of what it predicts. A score is a share of attention, so it has an even share, that of a
head which looks at all it may see alike; the heads of an untrained model do just that. Rows begin in
the window's second half, where an even head has several steps to spread over.

Legend: T steps of a window, D tokens of a step, L tokens of a window, Q rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

PLANNER, CONDITIONED = "trajectory_transformer", "decision_transformer"
MARKOVIAN, STRIATED, SMOOTHING = "Markovian", "striated", "action-smoothing"
PATTERNS = (MARKOVIAN, STRIATED, SMOOTHING)
STRIPES_FIRST = (STRIATED, SMOOTHING, MARKOVIAN)
"""The rarer first: of heads that show several, which one is to stand for which."""
AHEAD = "actions over states"
CLEARLY = 2.0
"""A head shows a pattern where it looks at the pattern's tokens twice as much as an even head does,"""
MOSTLY = 0.5
"""and is Markovian where these two steps also have most of its attention."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What the L tokens of a window stand for.

    `names`, `kinds`: of the D tokens of a step (observation, action, return, reward, value);
    `unseen`: tokens of a step that nothing looks at. `rows` (Q,): positions that predict the token
    after them. `states` and `actions` (n, 2): rows by position, with the token of a step whose stripe
    is looked for in them: that of a state's dimension, that of an action's.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    steps: int
    unseen: tuple[int, ...]
    rows: np.ndarray
    states: np.ndarray
    actions: np.ndarray

    @property
    def size(self) -> int:
        return len(self.names)

    def time(self, positions: np.ndarray) -> np.ndarray:
        """The step of what is predicted from these positions."""
        return (positions + 1) // self.size


def tokens_of(model: Any, *, algorithm: str) -> Tokens:
    """The tokens of a Trajectory Transformer's window, L = T D - 1, or a Decision Transformer's, 3 T.

    A Decision Transformer predicts actions alone, from its state tokens: each is looked at for the
    stripe of states, which it is itself, and for that of actions.
    """
    if algorithm == CONDITIONED:
        steps = model.config.context_length
        rows = np.arange(1, 3 * steps, 3)
        return Tokens(
            names=("return", "state", "action"),
            kinds=("return", "observation", "action"),
            steps=steps,
            unseen=(),
            rows=rows,
            states=np.stack([rows, np.full(steps, 1)], axis=1),
            actions=np.stack([rows, np.full(steps, 2)], axis=1),
        )
    layout, steps = model.layout, model.config.transitions
    kinds = tuple(layout.kind(slot) for slot in range(layout.size))
    rows = np.arange(model.block_size)
    following = np.stack([rows, (rows + 1) % layout.size], axis=1)
    of_kind = {
        kind: following[np.array([kinds[slot] == kind for slot in following[:, 1]])]
        for kind in ("observation", "action")
    }
    return Tokens(
        names=tuple(name.replace("_", " ") for name in layout.names),
        kinds=kinds,
        steps=steps,
        unseen=(layout.value,),
        rows=rows,
        states=of_kind["observation"],
        actions=of_kind["action"],
    )


def scores(rows: np.ndarray, tokens: Tokens) -> dict[str, float]:
    """The share of attention of each of `PATTERNS` in a head's rows (Q, L), and `AHEAD`: of what
    rows that predict actions pay to actions and states of earlier steps, the
    actions' share."""
    return {
        name: float(rows[places][looked].sum() / len(places))
        for name, (places, looked) in _looked_for(tokens, rows.shape[1]).items()
    } | {AHEAD: _actions_over_states(rows, tokens)}


def even_scores(tokens: Tokens) -> dict[str, float]:
    """The same of a head that looks at every token it may see alike."""
    return scores(even_rows(tokens), tokens)


def even_rows(tokens: Tokens) -> np.ndarray:
    """(Q, L): the rows of a head that looks at every token it may see alike."""
    keys = np.arange(tokens.steps * tokens.size)[: int(tokens.rows[-1]) + 1]
    seen = keys <= tokens.rows[:, None]
    seen &= ~np.isin(keys % tokens.size, tokens.unseen)
    return np.asarray(seen / seen.sum(axis=1, keepdims=True))


def predicting(attention: np.ndarray, tokens: Tokens) -> np.ndarray:
    """A layer's maps (H, S, L) as those of the rows that predict, (H, Q, L'), up to the last of them."""
    rows = attention
    if attention.shape[1] != len(tokens.rows):
        rows = attention[:, tokens.rows]
    return rows[:, :, : int(tokens.rows[-1]) + 1]


def occurs(found: Mapping[str, float], even: Mapping[str, float]) -> dict[str, bool]:
    """Which patterns a head shows."""
    return {name: found[name] >= threshold(name, even) for name in PATTERNS}


def threshold(name: str, even: Mapping[str, float]) -> float:
    """The score from which on a head shows a pattern."""
    return max(CLEARLY * even[name], MOSTLY if name == MARKOVIAN else 0.0)


def _looked_for(tokens: Tokens, length: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By pattern: the rows that are read, as places (n,) among the Q, and which tokens count (n, L)."""
    keys = np.arange(length)
    everything = np.stack([tokens.rows, np.zeros_like(tokens.rows)], axis=1)
    asked = {MARKOVIAN: everything, STRIATED: tokens.states, SMOOTHING: tokens.actions}
    found = {}
    for name, pairs in asked.items():
        late = pairs[tokens.time(pairs[:, 0]) >= tokens.steps // 2]
        back = tokens.time(late[:, 0])[:, None] - keys // tokens.size
        if name == MARKOVIAN:
            looked = back <= 1
        else:
            looked = (keys % tokens.size == late[:, 1:]) & (back >= (2 if name == STRIATED else 1))
        found[name] = (np.searchsorted(tokens.rows, late[:, 0]), looked)
    return found


def _actions_over_states(rows: np.ndarray, tokens: Tokens) -> float:
    places, _ = _looked_for(tokens, rows.shape[1])[SMOOTHING]
    keys = np.arange(rows.shape[1])
    earlier = keys // tokens.size < tokens.time(tokens.rows[places])[:, None]
    kinds = np.array(tokens.kinds)[keys % tokens.size]
    paid = {
        kind: rows[places][earlier & (kinds == kind)].sum() for kind in ("action", "observation")
    }
    return float(paid["action"] / max(sum(paid.values()), 1e-12))
