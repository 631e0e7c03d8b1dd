"""Bins: real entries to tokens and back, each dimension by its own edges, kept as buffers.

Quantile and uniform bins are ours: N + 1 edges, so that few rows and ties do no harm, and each bin
is represented by the mean of the data in it, so that one far value (a termination penalty) does not
drag its bin's middle. A value that fills whole bins by itself (a saturated action, a sparse
reward) gets one that holds nothing else. `encode(decode(k)) == k` for every bin with data.
`published` bins are those of the Trajectory Transformer's authors, represented by their middles.

Legend: D dimensions, N bins, M rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.core.errors import DataError

Method = Literal["quantile", "uniform", "published"]


def fit_bins(
    rows: np.ndarray,
    *,
    num_bins: int,
    method: Method,
    integers: np.ndarray | None = None,
    starts: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """`edges` (D, N+1) and `values` (D, N), float32, of real rows (M, D).

    `integers` (D,): the number of values of a dimension that counts from `starts` (D,; None: 0),
    and 0 where it is real; such a dimension has a bin for each value. Raises `DataError` for no rows, values
    that are not finite, more integers than bins, and too few rows for published bins.
    """
    if rows.ndim != 2 or len(rows) == 0:
        raise DataError("bins: there are no rows to fit them on")
    if not np.isfinite(rows).all():
        raise DataError("bins: a value is not finite; trajlm data check shows where")
    counts = np.zeros(rows.shape[1], int) if integers is None else integers
    starts = np.zeros_like(counts) if starts is None else starts
    if counts.max(initial=0) > num_bins:
        raise DataError(f"bins: {counts.max()} values of a discrete entry need num_bins as many")
    edges = np.stack(
        [
            start + _integer_edges(num_bins, count) if count else _edges(column, num_bins, method)
            for column, count, start in zip(rows.T, counts, starts, strict=True)
        ]
    )
    columns = zip(rows.T, edges, counts, strict=True)
    values = [_values(column, edge, method, integer=bool(n)) for column, edge, n in columns]
    return {"edges": edges.astype(np.float32), "values": np.stack(values).astype(np.float32)}


def encode_rows(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(M, D) real -> (M, D) tokens, uint8 where N + 1 of them fit, else uint16."""
    num_bins = edges.shape[1] - 1
    tokens = np.empty(rows.shape, np.uint8 if num_bins < 256 else np.uint16)
    for d, edge in enumerate(edges):
        tokens[:, d] = _places(rows[:, d], edge)
    return tokens


def published_edges(column: np.ndarray, num_bins: int) -> np.ndarray:
    """The authors' edges (N+1,): every ceil(M/N)-th of the sorted values, and the largest.

    Raises `DataError` where the rows are too few to give N of them (known to break their code).
    """
    ordered = np.sort(column)
    edges = np.concatenate([ordered[:: math.ceil(len(column) / num_bins)], ordered[-1:]])
    if len(edges) != num_bins + 1:
        raise DataError(
            f"bins: {len(column)} rows give {len(edges) - 1} published bins instead of {num_bins}; "
            "use model.bins quantile"
        )
    return edges


def _edges(column: np.ndarray, num_bins: int, method: Method) -> np.ndarray:
    if method == "published":
        return published_edges(column, num_bins)
    if method == "uniform":
        # In float64: the range of float32 values may be no float32.
        low, high = column.min().astype(np.float64), column.max().astype(np.float64)
        return np.linspace(low, high, num_bins + 1).astype(np.float32)
    levels = np.linspace(0.0, 1.0, num_bins + 1)
    edges = np.quantile(column.astype(np.float64), levels).astype(np.float32)
    # Both ends are data: rounding to float32 must not leave a value outside.
    edges[0], edges[-1] = column.min(), column.max()
    # Where edges coincide, a bin of no width would be; make it hold that value and no other.
    last_of_run = np.flatnonzero((edges[1:] == edges[:-1]) & (edges[1:] < edges[-1])) + 1
    ends = [k for k in last_of_run if edges[k + 1] > edges[k]]
    edges[ends] = np.nextafter(edges[ends], np.float32(np.inf))
    return edges


def _integer_edges(num_bins: int, count: int) -> np.ndarray:
    """Halfway between integers; bins past the last value are empty."""
    edges: np.ndarray = np.arange(num_bins + 1) - 0.5
    edges[count:] = count - 0.5
    return edges


def _places(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each value: the last edge at or below it; outside values go to the end bins."""
    places = np.searchsorted(edges, column, side="right") - 1
    return np.asarray(places.clip(0, len(edges) - 2))


def _values(column: np.ndarray, edges: np.ndarray, method: Method, *, integer: bool) -> np.ndarray:
    """What each bin decodes to: the mean of its data, its middle where it has none."""
    middles = (edges[:-1].astype(np.float64) + edges[1:]) / 2
    if integer:
        return np.asarray(np.rint(np.minimum(edges[:-1] + 0.5, edges[-1] - 0.5)))
    if method == "published":
        return np.asarray(middles)
    places = _places(column, edges)
    counts = np.bincount(places, minlength=len(middles))
    sums = np.bincount(places, weights=column.astype(np.float64), minlength=len(middles))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), middles)
    # The rounded mean stays in its bin.
    upper = np.nextafter(edges[1:], np.float32(-np.inf), dtype=np.float32)
    upper[-1] = edges[-1]
    return np.clip(means.astype(np.float32), edges[:-1], np.maximum(upper, edges[:-1]))


class Discretizer(nn.Module):
    """Fitted bins as buffers: `edges` (D, N+1), `values` (D, N)."""

    edges: Tensor
    values: Tensor

    def __init__(self, dimensions: int, num_bins: int) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.register_buffer("edges", torch.zeros(dimensions, num_bins + 1))
        self.register_buffer("values", torch.zeros(dimensions, num_bins))

    def fit(self, fitted: Mapping[str, np.ndarray], prefix: str) -> None:
        """Take `PREFIX/edges` and `PREFIX/values` from fitted arrays, where they are there."""
        for name in ("edges", "values"):
            if f"{prefix}/{name}" in fitted:
                getattr(self, name).copy_(torch.as_tensor(fitted[f"{prefix}/{name}"]))

    def encode(self, x: Tensor, *, first: int = 0) -> Tensor:
        """Real entries (..., K) of dimensions `first`.. to tokens (..., K) int64."""
        count = x.shape[-1]
        edges = self.edges[first : first + count]
        columns = x.reshape(-1, count).T.contiguous().to(edges.dtype)
        places = torch.searchsorted(edges.contiguous(), columns, right=True) - 1
        return places.clamp(0, self.num_bins - 1).T.reshape(x.shape)

    def decode(self, tokens: Tensor, *, first: int = 0) -> Tensor:
        """Tokens (..., K) of dimensions `first`.. to what their bins stand for (..., K).

        A stop token decodes to the top bin, as published; only planners of models with published
        fidelity choose one.
        """
        count = tokens.shape[-1]
        places = tokens.clamp(max=self.num_bins - 1)
        dimensions = torch.arange(first, first + count, device=tokens.device)
        return self.values[dimensions, places]

    def expectation(self, probabilities: Tensor, *, dimension: int) -> Tensor:
        """(..., N) -> (...): the mean over bins; a missing share (a stop's) counts as 0."""
        # Not a product of matrices, which autocast would round.
        return (probabilities * self.values[dimension].to(probabilities.dtype)).sum(-1)

    def percentile(self, probabilities: Tensor, percent: float, *, dimension: int) -> Tensor:
        """(..., N) -> (...): the first bin below which, it included, lie `percent` of the mass.

        The published code reads the edges one bin too low, and wraps for the lowest.
        """
        cumulative = probabilities.cumsum(-1)
        wanted = cumulative[..., -1:] * (percent / 100.0)
        places = (cumulative < wanted).sum(-1).clamp(max=self.num_bins - 1)
        return self.values[dimension][places]
