"""Two linear maps, each with an objective of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    pass


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    pass
