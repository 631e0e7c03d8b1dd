"""How a model is trained, whatever the algorithm. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training of one model. The defaults are the published Decision Transformer's (gym).

    Cadences (`..._every`) are in updates; 0 means never, for `evaluate_every` only at the end.
    A checkpoint, a validation and an evaluation follow the last update in any case.

    `weight_decay` acts on the parameters of `decay`: on "all" of them, as plain AdamW in the
    published code does, on "matrices" only (tensors of two axes or more), or on "linear" maps only:
    those matrices that are no tables of embeddings or positions.
    `schedule`: after the linear warm-up the rate stays, or falls along half a cosine over the
    remaining updates to `final_rate` times itself, or along `decay_steps` of them, and stays there.
    `gradient_clip`: the largest global norm of the gradient; None for no clipping.
    `early_share`: the share of windows that start within the first steps of an episode, whatever is
    drawn for them (not in the papers, which draw all steps alike): where several behaviours start
    alike, what tells them apart is one step in a thousand.
    `precision`: "auto" takes bf16 only where the hardware multiplies it natively.
    `validation_fraction`: the share of episodes held out.
    `keep_last`: checkpoints kept besides the best one.
    `time_limit`: seconds after which no further update is made; None for no limit.
    """

    steps: int = 100_000
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    decay: Literal["all", "matrices", "linear"] = "all"
    betas: tuple[float, ...] = (0.9, 0.999)
    warmup_steps: int = 10_000
    schedule: Literal["constant", "cosine"] = "constant"
    decay_steps: int | None = None
    final_rate: float = 0.1
    gradient_clip: float | None = 0.25
    early_share: float = 0.0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    validation_fraction: float = 0.05
    validation_every: int = 1_000
    log_every: int = 100
    evaluate_every: int = 0
    checkpoint_every: int = 5_000
    keep_last: int = 2
    tensorboard: bool = True
    time_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "keep_last"):
            _at_least(name, getattr(self, name), 1)
        for name in ("warmup_steps", "validation_every", "evaluate_every", "checkpoint_every"):
            _at_least(name, getattr(self, name), 0)
        if self.decay_steps is not None:
            _at_least("decay_steps", self.decay_steps, 1)
        for name in ("learning_rate", "gradient_clip", "time_limit"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name}: must be a finite number above 0, found {value}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"weight_decay: must be 0 or more, found {self.weight_decay}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas: must be two numbers in [0, 1), found {list(self.betas)}")
        for name in ("final_rate", "validation_fraction", "early_share"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UsageError(f"{name}: must lie in [0, 1), found {value}")

    @property
    def best_metric(self) -> str:
        """What the `best` checkpoint is chosen by: the held-out loss, lowest, unless policies are
        evaluated along the way; then their score, highest."""
        return "evaluation/score" if self.evaluate_every else "validation/loss"


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name}: must be {least} or more, found {value}")
