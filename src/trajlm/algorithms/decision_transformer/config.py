"""Decision Transformer: actions from desired returns, states and past actions (Chen et al. 2021).

arXiv 2106.01345. Torch-free: read by the command line before a model is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trajlm.core.errors import UsageError
from trajlm.core.spec import check_target


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model and what it is fed.

    `context_length`: K, steps of history (3 K tokens). `return_scale`: returns-to-go are divided
    by it; None takes a fifth of the data's largest absolute return. `max_timestep`: rows of the
    timestep table; None takes the data's longest episode. `window_timesteps`: count steps from the
    window's first instead of the episode's, so that the rest of an episode reads like an episode. `published_parts`: carry the published
    model's heads for states and returns, which no loss reads, for the way back to `transformers`.
    `initial_deviation`: of the initial weights; GPT-2's, or about 1 / sqrt(width) for small widths.
    `from_start`: learn from windows that begin with their episode; for a context that holds a whole
    one. `predict_returns`: also learn which of `return_bins` evenly spaced returns will follow, from
    states and actions alone: the model is a critic too, and may choose what to ask for.
    """

    context_length: int = 20
    width: int = 128
    num_layers: int = 3
    num_heads: int = 1
    mlp_width: int | None = None
    activation: Literal["relu", "gelu"] = "relu"
    dropout: float = 0.1
    return_scale: float | None = None
    max_timestep: int | None = None
    window_timesteps: bool = False
    published_parts: bool = False
    from_start: bool = False
    predict_returns: bool = False
    return_bins: int = 51
    initial_deviation: float = 0.02

    def __post_init__(self) -> None:
        if not 1 <= self.context_length <= 4096:
            raise UsageError(f"context_length: {self.context_length} is not in 1..4096")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout: {self.dropout} is not in [0, 1)")
        if self.return_scale is not None and not 0.0 < self.return_scale < float("inf"):
            raise UsageError(f"return_scale: {self.return_scale} is not positive and finite")
        if self.max_timestep is not None and not 1 <= self.max_timestep <= 1_000_000:
            raise UsageError(f"max_timestep: {self.max_timestep} is not in 1..1000000")
        if not 0.0 < self.initial_deviation <= 1.0:
            raise UsageError(f"initial_deviation: {self.initial_deviation} is not in (0, 1]")
        if not 2 <= self.return_bins <= 4096:
            raise UsageError(f"return_bins: {self.return_bins} is not in 2..4096")
        if self.num_layers * self.width * self.width > 2**31 // 12:
            raise UsageError(
                f"width: {self.width} with {self.num_layers} layers is over 2^31 weights"
            )


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How it acts.

    `target_return`: what is asked for, in the environment's reward units; several are evaluated
    side by side. `max` (also None) is the best return in the data, `q95` their 95% quantile,
    `expert` the expert behaviour's mean return. `context_length`: steps of history
    used, at most the model's; None uses all. `temperature`: 0 takes the likeliest of discrete
    actions, above it they are drawn (1: as the model believes). `return_prior`: above 0, a model that
    predicts returns asks for one that it finds likely, at most the target; the higher, the more a
    high return counts against a likely one (published for the graph: 10). `precision`: of the
    forward pass.
    """

    target_return: tuple[float | str, ...] | None = None
    context_length: int | None = None
    temperature: float = 0.0
    return_prior: float = 0.0
    precision: Literal["float32", "bf16"] = "float32"

    def __post_init__(self) -> None:
        for target in self.target_return or ():
            check_target(target)
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature: {self.temperature} is negative or not finite")
        if not 0.0 <= self.return_prior < float("inf"):
            raise UsageError(f"return_prior: {self.return_prior} is negative or not finite")
        if self.context_length is not None and self.context_length < 1:
            raise UsageError(f"context_length: {self.context_length} is less than 1")
