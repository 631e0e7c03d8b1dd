"""A linear regression with dropout."""

from __future__ import annotations

from dataclasses import dataclass

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 16
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 1024:
            raise UsageError(f"width: must lie in 1 to 1024, found {self.width}")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    pass
