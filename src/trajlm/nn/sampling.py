"""Drawing tokens from logits with given uniform draws, so that the same draws give the same tokens.

Legend: R rows, V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trajlm.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which tokens may be drawn, and how.

    `top_k`: the k likeliest (1 is the argmax; None all). `cdf`: leave out the least likely tokens
    that together hold at most this share of the probability of all, whatever `top_k` leaves out.
    The likeliest token always stays.
    """

    top_k: int | None = None
    cdf: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k: {self.top_k} is less than 1")
        if self.cdf is not None and not 0.0 <= self.cdf < 1.0:
            raise UsageError(f"cdf: {self.cdf} is not in [0, 1)")
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature: {self.temperature} is negative or not finite")

    @property
    def greedy(self) -> bool:
        return self.top_k == 1 or self.temperature == 0.0


def draw(logits: Tensor, keep: Filter, uniforms: Tensor) -> Tensor:
    """(R, V), uniforms (R,) in (0, 1) -> tokens (R,) int64, by the inverse of the cumulated mass.

    Tokens are laid in rising order of probability; ties by number. The published `cdf` filter
    compares with <=, so that tokens of equal probability go together, and with all of them.
    """
    if keep.greedy:
        return logits.argmax(-1)
    scaled = logits / keep.temperature if keep.temperature != 1.0 else logits
    probabilities = torch.softmax(scaled, dim=-1)
    ordered, tokens = torch.sort(probabilities, dim=-1, stable=True)
    mass = ordered.cumsum(-1)
    # (R,): the mass of what is left out; the draw falls into the rest.
    dropped = torch.zeros_like(mass[:, 0])
    if keep.cdf is not None:
        within = mass <= keep.cdf
        within[:, -1] = False  # rounding may leave the whole mass below 1
        dropped = torch.where(within, mass, 0.0).amax(-1)
    if keep.top_k is not None and keep.top_k < mass.shape[-1]:
        dropped = torch.maximum(dropped, mass[:, -keep.top_k - 1])
    point = dropped + uniforms.to(mass.dtype) * (mass[:, -1] - dropped)
    place = torch.searchsorted(mass, point[:, None], right=True).clamp(max=mass.shape[-1] - 1)
    return tokens.gather(1, place)[:, 0]
