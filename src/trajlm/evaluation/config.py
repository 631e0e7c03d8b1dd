"""What an evaluation is asked to do. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a policy is scored.

    `episodes`: for each target; 0 trains without scoring. `seed`: episode k is reset with
    `seed + k`, for every target the same. `num_envs`: environments in one batch, all targets
    together; None takes every episode at once, up to 256. `precision`: of the policy's forward; reported scores use float32. `video`:
    record one episode, of `video_steps` steps at most (three lanes of 600 make a film of 2 MB).
    `strict`: a failed episode is an error (exit code 5) instead of a count.
    """

    episodes: int = 50
    seed: int = 1000
    num_envs: int | None = None
    precision: Literal["float32", "bf16"] = "float32"
    video: bool = True
    video_steps: int = 600
    strict: bool = False

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise UsageError(f"episodes: {self.episodes} is negative")
        if self.num_envs is not None and self.num_envs < 1:
            raise UsageError(f"num_envs: {self.num_envs} is not positive")
        if self.video_steps < 1:
            raise UsageError(f"video_steps: {self.video_steps} is not positive")
        if self.seed < 0:
            raise UsageError(f"seed: {self.seed} is negative")
