"""From a space's entries to vectors: the encoder is chosen by the spec."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.core.errors import UsageError
from trajlm.core.spec import Box, DictSpace, Space
from trajlm.nn.normalizer import Normalizer


class VectorEncoder(nn.Module):
    """A Box of any shape, flattened, normalised by the data's statistics and mapped linearly."""

    def __init__(
        self, space: Box, width: int, *, name: str, fitted: Mapping[str, np.ndarray]
    ) -> None:
        super().__init__()
        self.normalizer = Normalizer(space.size)
        self.normalizer.fit(fitted, name)
        self.linear = nn.Linear(space.size, width)
        self.dimensions = len(space.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, ...) raw -> (B, T, D)."""
        flat = x.flatten(-self.dimensions) if self.dimensions > 1 else x
        encoded: Tensor = self.linear(self.normalizer(flat.float()))
        return encoded


class DictEncoder(nn.Module):
    """The sum of the encodings of a Dict space's leaves: one linear map of all of them."""

    def __init__(
        self, space: DictSpace, width: int, *, name: str, fitted: Mapping[str, np.ndarray]
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {
                leaf: encoder(subspace, width, name=f"{name}/{leaf}", fitted=fitted)
                for leaf, subspace in space.subspaces.items()
            }
        )

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """{leaf: (B, T, ...)} -> (B, T, D)."""
        return torch.stack([part(x[leaf]) for leaf, part in self.parts.items()]).sum(0)


def encoder(space: Space, width: int, *, name: str, fitted: Mapping[str, np.ndarray]) -> nn.Module:
    """The encoder of a space. `name`: the column whose statistics `fitted` holds.

    Raises `UsageError` for a space that has none yet.
    """
    if isinstance(space, DictSpace):
        if any(isinstance(sub, DictSpace) for sub in space.subspaces.values()):
            raise UsageError(f"{name}: a Dict space inside a Dict space has no encoder; flatten it")
        return DictEncoder(space, width, name=name, fitted=fitted)
    if isinstance(space, Box) and math.prod(space.shape) <= 4096:
        return VectorEncoder(space, width, name=name, fitted=fitted)
    kind = "an image" if isinstance(space, Box) else type(space).__name__
    raise UsageError(f"{name}: {kind} has no encoder in this version; Box vectors have")
