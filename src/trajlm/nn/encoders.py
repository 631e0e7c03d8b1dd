"""From a space's entries to vectors: the encoder is chosen by the spec."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.core.errors import UsageError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space
from trajlm.nn.heads import ActionScale, choices
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


class IntegerEncoder(nn.Module):
    """Discrete or MultiDiscrete: the sum of one learned vector for each entry's value."""

    offsets: Tensor

    def __init__(self, space: Discrete | MultiDiscrete, width: int) -> None:
        super().__init__()
        self.shape = space.shape
        self.sizes = (space.n,) if isinstance(space, Discrete) else space.nvec
        self.start = space.start if isinstance(space, Discrete) else 0
        offsets = np.cumsum([0, *self.sizes[:-1]])
        self.register_buffer("offsets", torch.from_numpy(offsets), persistent=False)
        self.table = nn.Embedding(sum(self.sizes), width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, ...) integers -> (B, T, D)."""
        entries = choices(x, start=self.start, sizes=self.sizes, shape=self.shape)
        encoded: Tensor = self.table(entries + self.offsets).sum(-2)
        return encoded


class ContinuousActionEncoder(nn.Module):
    """Bounded actions in [-1, 1], others as they are, through a linear map."""

    def __init__(self, space: Box, width: int) -> None:
        super().__init__()
        self.scale = ActionScale(space)
        self.linear = nn.Linear(space.size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, ...) in the environment's units -> (B, T, D)."""
        encoded: Tensor = self.linear(self.scale.to_unit(x.flatten(2)))
        return encoded


class DictEncoder(nn.Module):
    """The sum of the encodings of a Dict space's leaves: one linear map of all of them."""

    def __init__(
        self, space: DictSpace, width: int, *, name: str, fitted: Mapping[str, np.ndarray]
    ) -> None:
        super().__init__()
        # A list: a leaf may have a name that a module has already, such as `keys`.
        self.names = tuple(space.subspaces)
        self.parts = nn.ModuleList(
            [
                encoder(leaf, width, name=f"{name}/{key}", fitted=fitted)
                for key, leaf in space.subspaces.items()
            ]
        )

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """{leaf: (B, T, ...)} -> (B, T, D)."""
        named = zip(self.names, self.parts, strict=True)
        return torch.stack([part(x[name]) for name, part in named]).sum(0)


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
    if isinstance(space, Discrete | MultiDiscrete):
        return IntegerEncoder(space, width)
    raise UsageError(
        f"{name}: an image of {space.shape} has no encoder in this version; "
        "vectors and integers have"
    )


def action_encoder(space: Space, width: int) -> nn.Module:
    """The encoder of past actions, raw (B, T, ...) -> (B, T, D). Raises `UsageError`."""
    if isinstance(space, Box):
        return ContinuousActionEncoder(space, width)
    return encoder(space, width, name="actions", fitted={})
