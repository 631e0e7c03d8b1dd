"""From hidden states to returns: a distribution over bins, learned by cross-entropy.

Legend: B batch, T time, D width, V bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class ReturnHead(nn.Module):
    """Logits of V evenly spaced returns from `low` to `high`, in the environment's units."""

    centres: Tensor

    def __init__(self, width: int, *, low: float, high: float, bins: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, bins))
        self.linear = nn.Linear(width, bins)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> log-probabilities (..., V), worst return first."""
        logits: Tensor = self.linear(hidden)
        return torch.log_softmax(logits.float(), dim=-1)

    def loss(self, hidden: Tensor, returns: Tensor) -> Tensor:
        """(B, T, D), returns (B, T) -> (B, T), in nats; a return counts as its nearest bin."""
        nearest = (returns[..., None] - self.centres).abs().argmin(-1)
        predicted: Tensor = self(hidden)
        return functional.nll_loss(predicted.transpose(1, 2), nearest, reduction="none")

    def mean(self, hidden: Tensor) -> Tensor:
        """(..., D) -> the expected return (...)."""
        predicted: Tensor = self(hidden)
        return (predicted.exp() * self.centres).sum(-1)

    def propose(self, hidden: Tensor, *, ceiling: Tensor, prior: float) -> Tensor:
        """The return to ask for, likely and high: (N, D), ceiling (N,) -> (N,).

        The maximum of log P(R) + `prior` log k over the bins k = 1..V, counted from the worst
        return, that are not above the ceiling (Chen et al. 2021, appendix on the graph: prior 10).
        """
        bins = len(self.centres)
        ranks = torch.arange(1, bins + 1, device=hidden.device)
        scores = self(hidden) + prior * ranks.log()
        slack = float(self.centres[-1] - self.centres[0]) / max(1, bins - 1) / 2
        above = self.centres > ceiling[:, None] + slack
        above[:, 0] = False
        return self.centres[scores.masked_fill(above, -math.inf).argmax(-1)]
