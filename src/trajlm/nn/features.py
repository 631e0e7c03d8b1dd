"""A space's entries as one flat vector: what a feed-forward network reads.

Real vectors are normalised by the data's statistics, integers become one-hot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trajlm.core.errors import CheckpointError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space, leaves
from trajlm.nn.heads import choices
from trajlm.nn.normalizer import Normalizer


class VectorFeatures(nn.Module):
    """A Box of any shape, flattened and normalised: (B, T, ...) raw -> (B, T, F)."""

    def __init__(self, space: Box, *, name: str, fitted: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.size = space.size
        self.normalizer = Normalizer(space.size)
        self.normalizer.fit(fitted, name)

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.normalizer(x.flatten(2).float())
        return normalized


class IntegerFeatures(nn.Module):
    """Discrete or MultiDiscrete as one-hot vectors: (B, T, ...) integers -> (B, T, F)."""

    def __init__(self, space: Discrete | MultiDiscrete) -> None:
        super().__init__()
        self.shape = space.shape
        self.sizes = (space.n,) if isinstance(space, Discrete) else space.nvec
        self.start = space.start if isinstance(space, Discrete) else 0
        self.size = sum(self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        entries = choices(x, start=self.start, sizes=self.sizes, shape=self.shape)
        parts = zip(entries.unbind(-1), self.sizes, strict=True)
        return torch.cat([functional.one_hot(e, size) for e, size in parts], dim=-1).float()


class DictFeatures(nn.Module):
    """The features of a Dict space's leaves, one after another."""

    def __init__(self, space: DictSpace, *, name: str, fitted: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        # A list: a leaf may have a name that a module has already, such as `keys`.
        self.names = tuple(space.subspaces)
        parts = [
            features(leaf, name=f"{name}/{key}", fitted=fitted)
            for key, leaf in space.subspaces.items()
        ]
        self.size: int = sum(part.size for part in parts)
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        named = zip(self.names, self.parts, strict=True)
        return torch.cat([part(x[name]) for name, part in named], dim=-1)


def features(
    space: Space, *, name: str, fitted: Mapping[str, np.ndarray]
) -> VectorFeatures | IntegerFeatures | DictFeatures:
    """The features of a space. `name`: the column whose statistics `fitted` holds."""
    if isinstance(space, DictSpace):
        return DictFeatures(space, name=name, fitted=fitted)
    if isinstance(space, Box):
        return VectorFeatures(space, name=name, fitted=fitted)
    return IntegerFeatures(space)


def bounds_as_statistics(space: Space, *, name: str) -> dict[str, np.ndarray]:
    """What brings a bounded Box to [-1, 1], in the form of fitted statistics; nothing for others."""
    if not isinstance(space, Box) or not space.bounded:
        return {}
    low, high = np.asarray(space.low), np.asarray(space.high)
    return {f"{name}/mean": (low + high) / 2, f"{name}/std": (high - low) / 2}


def entries_of(
    space: Space, rows: Any, *, name: str, device: torch.device
) -> Tensor | dict[str, Tensor]:
    """Rows (N, E), the entries of all leaves side by side in their order, as one step each of the
    space's arrays: (N, 1, ...), by leaf name for a Dict space. Integers are rounded.

    Raises `CheckpointError` where there are not as many entries.
    """
    given = torch.as_tensor(rows, device=device).float()
    given = given[:, None] if given.ndim == 1 else given.flatten(1)
    parts = leaves(space, "")
    sizes = [
        leaf.size if isinstance(leaf, Box) else math.prod(leaf.shape) for leaf in parts.values()
    ]
    if given.shape[1] != sum(sizes):
        raise CheckpointError(
            f"guide: it was trained on {sum(sizes)} entries of an {name}, not {given.shape[1]}"
        )
    arrays = {
        key.lstrip("/"): (part if isinstance(leaf, Box) else part.round().long()).reshape(
            -1, 1, *leaf.shape
        )
        for (key, leaf), part in zip(parts.items(), given.split(sizes, dim=1), strict=True)
    }
    return arrays[""] if isinstance(space, Box | Discrete | MultiDiscrete) else arrays
