"""Normalisation by fitted statistics, kept as buffers: they move and save with the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """(x - mean) / std over the entry's flat dimensions.

    The published code divides by std + 1e-6 (Decision Transformer); a dimension that never varies
    then explodes when it moves for the first time at evaluation. Here such a dimension has std 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, fitted: Mapping[str, np.ndarray], name: str) -> None:
        """Take `NAME/mean` and `NAME/std` from fitted arrays, where they are there."""
        if f"{name}/mean" in fitted:
            self.mean.copy_(torch.as_tensor(fitted[f"{name}/mean"]).float().flatten())
            std = torch.as_tensor(fitted[f"{name}/std"]).double().flatten()
            self.std.copy_(torch.where(std < 1e-6, torch.ones_like(std), std + 1e-6).float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return (x - self.mean) / self.std
