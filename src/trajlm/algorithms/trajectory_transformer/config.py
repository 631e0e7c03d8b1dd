"""Trajectory Transformer: whole trajectories as a language, planned by beam search (Janner et al. 2021).

arXiv 2106.02039. Torch-free: read by the command line before a model is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model and what it is fed.

    `transitions`: T, transitions (observation, action, reward, value) of a training window; a
    block is T x (their entries) - 1 tokens. `observation_size`: only the first entries of an
    observation are modelled (the authors keep 27 of Ant's 111); None models all. `num_bins`: tokens an entry, besides the stop token.
    `bins`: quantile, uniform, or the authors' own quantiles. `discount`: of the value token.
    `termination_penalty`: the reward of a real terminal step is replaced by it; None keeps it.
    `action_weight`, `reward_weight`, `value_weight`: of their tokens in the loss, an observation's
    being 1. `goal`: tokens of a goal observation before the sequence: none, the episode's last
    observation (as published), or one from the future of the window's first step (hindsight).
    `goal_size`: only the first entries of an observation make a goal; None takes all.
    `first_weights`: of embeddings and heads before training: each bin's its own (as published), or
    "ordered", so that neighbouring bins begin alike, and less has to be learned bin by bin.
    `fidelity`: "published" repeats the authors' code where ours corrects it: the loss is divided
    by masked tokens too and its mask sits one token early, an episode's end by its time limit is
    trained as a termination, the learning rate is set after each update and rises again past the
    end of its cosine, and a planner may choose stop tokens, which decode to the top bin.
    """

    transitions: int = 10
    observation_size: int | None = None
    num_bins: int = 100
    bins: Literal["quantile", "uniform", "published"] = "quantile"
    width: int = 128
    num_layers: int = 4
    num_heads: int = 4
    dropout: float = 0.1
    discount: float = 0.99
    termination_penalty: float | None = -100.0
    action_weight: float = 5.0
    reward_weight: float = 1.0
    value_weight: float = 1.0
    goal: Literal["none", "last", "future"] = "none"
    goal_size: int | None = None
    first_weights: Literal["independent", "ordered"] = "independent"
    fidelity: Literal["corrected", "published"] = "corrected"

    def __post_init__(self) -> None:
        if not 2 <= self.transitions <= 4096:
            raise UsageError(f"transitions: {self.transitions} is not in 2..4096")
        if not 2 <= self.num_bins <= 65_534:
            raise UsageError(f"num_bins: {self.num_bins} is not in 2..65534")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout: {self.dropout} is not in [0, 1)")
        if not 0.0 <= self.discount <= 1.0:
            raise UsageError(f"discount: {self.discount} is not in [0, 1]")
        for name in ("action_weight", "reward_weight", "value_weight"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name}: {getattr(self, name)} is negative or not finite")
        if self.termination_penalty is not None and not math.isfinite(self.termination_penalty):
            raise UsageError(f"termination_penalty: {self.termination_penalty} is not finite")
        if self.num_layers * self.width * self.width > 2**31 // 12:
            raise UsageError(
                f"width: {self.width} with {self.num_layers} layers is over 2^31 weights"
            )


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How it plans.

    `search`: "reward" (offline RL: the plan with the best predicted return) or "likelihood"
    (imitation; with a goal, the likeliest way to it). `horizon`: transitions planned ahead; None
    takes 5, or what the block has room for.
    `beam_width`: plans kept. `num_samples`: actions tried from each (reward search).
    `context`: transitions the model sees, the current one among them; None takes 5, or half of
    the block. `window`: "published" keeps
    the last `context` transitions in sight and starts their positions anew at each; "full_block"
    keeps past and plan in one block of the model, which both must fit.
    `top_k_observation`, `cdf_observation`, `top_k_action`, `cdf_action`: what may be drawn (k the
    likeliest tokens; without the least likely ones that hold this share of probability).
    `top_k_reward`: of reward and value tokens; 1 takes the likeliest.
    `temperature`: of every draw. `percentile`: of a reward's or value's distribution; None takes
    its mean. `replan_every`: steps acted from one plan. `goal`: the observation to reach.
    `precision`: of the forward passes. `kernels`: "compiled" runs them in C code that the machine's
    compiler makes at the first plan; the same plans, on the CPU in half the time.

    Beyond the paper, all off: `warm_start` tries the next action of the plan before among the first;
    `time_budget_ms` ends a plan after this time with the best so far; `early_stop` ends it where all
    plans agree up to the last action that is acted from them. What an early end left unplanned is
    planned anew when it is due.
    """

    search: Literal["reward", "likelihood"] = "reward"
    horizon: int | None = None
    beam_width: int = 32
    num_samples: int = 2
    context: int | None = None
    window: Literal["published", "full_block"] = "full_block"
    top_k_observation: int | None = 1
    cdf_observation: float | None = None
    top_k_action: int | None = None
    cdf_action: float | None = 0.6
    top_k_reward: int | None = 1
    temperature: float = 1.0
    percentile: float | None = None
    replan_every: int = 1
    goal: tuple[float, ...] | None = None
    precision: Literal["float32", "bf16"] = "float32"
    kernels: Literal["torch", "compiled"] = "torch"
    warm_start: bool = False
    time_budget_ms: float | None = None
    early_stop: bool = False

    def __post_init__(self) -> None:
        for name in ("horizon", "beam_width", "num_samples", "context", "replan_every"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 100_000:
                raise UsageError(f"{name}: {value} is not in 1..100000")
        for name in ("top_k_observation", "top_k_action", "top_k_reward"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: {value} is less than 1")
        for name in ("cdf_observation", "cdf_action"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < 1.0:
                raise UsageError(f"{name}: {value} is not in [0, 1)")
        if not 0.0 <= self.temperature < math.inf:
            raise UsageError(f"temperature: {self.temperature} is negative or not finite")
        if self.percentile is not None and not 0.0 < self.percentile <= 100.0:
            raise UsageError(f"percentile: {self.percentile} is not in (0, 100]")
        if self.kernels == "compiled" and self.precision != "float32":
            raise UsageError(
                "kernels: compiled ones keep float32; leave out --policy.precision, or take "
                "--policy.kernels torch"
            )
        if self.horizon is not None and self.replan_every > self.horizon:
            raise UsageError(
                f"replan_every: {self.replan_every} steps cannot be acted from a plan of horizon "
                f"{self.horizon}"
            )
        if self.time_budget_ms is not None and not 0.0 < self.time_budget_ms < math.inf:
            raise UsageError(f"time_budget_ms: {self.time_budget_ms} is not positive and finite")
