"""First weights under which neighbouring bins are alike: what a bin means need not be learned bin by bin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WAVES = 16
"""Cosines over an entry's bins; the j-th weighs 1 / (1 + j)."""


def order_bins(weight: Tensor, *, deviation: float) -> None:
    """Fill `weight` (D, N, W), the rows of N bins of each of D entries, with random smooth functions of
    the bin: sums of cosines, scaled so that an element's root mean square is `deviation`."""
    entries, bins, width = weight.shape
    waves = torch.arange(1, WAVES + 1)
    middles = (torch.arange(bins) + 0.5) / bins
    basis = torch.cos(math.pi * middles[:, None] * waves) / (1 + waves)
    basis = basis * (deviation / basis.square().sum(1).mean().sqrt())
    drawn = torch.einsum("nj,djw->dnw", basis, torch.randn(entries, WAVES, width))
    with torch.no_grad():
        weight.copy_(drawn)
