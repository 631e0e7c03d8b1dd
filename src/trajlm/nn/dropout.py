"""Dropout whose random numbers are cheap on a CPU.

`torch.nn.functional.dropout` draws one random number of 32 or more bits an element and, on a CPU,
costs as much as the matrix product beside it. Here one 64-bit draw decides four elements, so a
probability is a multiple of 1/65,536 (0.1 becomes 6554/65536 = 0.100006) and the scale is exactly
its inverse: the expectation is unchanged. On other devices the library's own kernel runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LANES = 65_536


def keep_mask(like: Tensor, probability: float) -> tuple[Tensor, float]:
    """A bool mask of `like`'s shape, True with probability about 1 - p, and the exact scale."""
    dropped = round(probability * _LANES)
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None)
    lanes = words.view(torch.int16)[: like.numel()].view(like.shape)
    return lanes >= dropped - _LANES // 2, _LANES / (_LANES - dropped)


class _DropoutAdd(torch.autograd.Function):
    """residual + scale * mask * x, keeping only the one-byte mask for the way back."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return torch.add(residual, x * mask, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return gradients[0], (gradients[0] * mask).mul_(ctx.scale), None, None


def dropout_add(residual: Tensor, x: Tensor, probability: float, *, training: bool) -> Tensor:
    """residual + dropout(x); both of one shape."""
    if not training or probability == 0.0:
        return residual + x
    if x.device.type != "cpu":
        return residual + torch.nn.functional.dropout(x, probability)
    mask, scale = keep_mask(x, probability)
    return _DropoutAdd.apply(residual, x, mask, scale)  # type: ignore[no-any-return]


def dropout(x: Tensor, probability: float, *, training: bool) -> Tensor:
    """Zero each element with the probability; scale the others to keep the mean."""
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return torch.nn.functional.dropout(x, probability)
    mask, scale = keep_mask(x, probability)
    return (x * scale) * mask
