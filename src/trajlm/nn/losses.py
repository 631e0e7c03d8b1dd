"""Means over real steps only: one `masked_mean`, used everywhere."""

from __future__ import annotations

from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of (B, T) values where the (B, T) mask is True; 0 where nowhere."""
    assert values.shape == mask.shape, (values.shape, mask.shape)
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1.0)
