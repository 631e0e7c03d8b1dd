"""Dropout whose random numbers are cheap on a CPU.

`torch.nn.functional.dropout` draws at least one 32-bit random number an element and, on a CPU,
costs more than the matrix product beside it. Here one 64-bit draw of a faster generator decides four
elements, so a probability is a multiple of 1/65,536 (0.1 becomes 6554/65536 = 0.100006) and the scale
is its inverse: the expectation is unchanged, up to the scale's rounding (in bf16 a factor of 0.998 for
0.1). On other devices the library's own kernel runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_LANES = 65_536


def keep_factors(like: Tensor, probability: float) -> Tensor:
    """Random factors of `like`'s shape: 0 with probability p, else 1 / (1 - p)."""
    if like.device.type != "cpu":
        return functional.dropout(torch.ones_like(like), probability)
    dropped = min(max(round(probability * _LANES), 1), _LANES - 1)
    scale = torch.tensor(_LANES / (_LANES - dropped), dtype=like.dtype)
    lanes = _random_lanes(like.numel()).view(like.shape)
    # Lanes are integers in -32768..32767, so clamping to one step makes the mask without the
    # comparison's bool tensor, whose product with floats is three times as slow.
    below = dropped - _LANES // 2 - 1
    kept = lanes.clamp_(below, below + 1).sub_(below)
    if like.dtype.itemsize == lanes.itemsize:  # a 0 or the bits of the scale, without a conversion
        return kept.mul_(int(scale.view(torch.int16))).view(like.dtype)
    return kept.to(like.dtype).mul_(scale.item())


def _random_lanes(count: int) -> Tensor:
    """`count` integers of 16 bits, by NumPy's SFC64, which PyTorch's generator seeds: it takes half
    of that one's time."""
    seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_())
    generator = np.random.Generator(np.random.SFC64(seed))
    words = generator.integers(0, 2**64, (count + 3) // 4, dtype=np.uint64)
    return torch.from_numpy(words.view(np.int16)[:count])


class _MultiplyAdd(torch.autograd.Function):
    """residual + x * factors, of the residual's dtype; the factors need no gradient."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(factors)
        if x.dtype == residual.dtype:
            return torch.addcmul(residual, x, factors)
        # A sum of two dtypes converts one, slowly.
        return (x * factors).to(residual.dtype).add_(residual)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (factors,) = ctx.saved_tensors
        return gradients[0], gradients[0].to(factors.dtype) * factors, None


def dropout_add(residual: Tensor, x: Tensor, probability: float, *, training: bool) -> Tensor:
    """residual + dropout(x); both of one shape, x of no wider dtype."""
    if not training or probability == 0.0:
        return residual + x
    if x.device.type != "cpu":
        return residual + dropout(x, probability, training=training)
    factors = keep_factors(x, probability)
    return _MultiplyAdd.apply(residual, x, factors)  # type: ignore[no-any-return,no-untyped-call]


def dropout(x: Tensor, probability: float, *, training: bool) -> Tensor:
    """Zero each element with the probability; scale the others to keep the mean."""
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, probability)
    return x * keep_factors(x, probability)
