"""Streams of tokens side by side, and one after another in time."""

from __future__ import annotations

import torch
from torch import Tensor


def interleave(*streams: Tensor) -> Tensor:
    """n streams (B, T, D) -> (B, n T, D): s0[0], s1[0], ..., s0[1], s1[1], ..."""
    return torch.stack(streams, dim=2).flatten(1, 2)
