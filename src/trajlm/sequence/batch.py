"""The batch: windows of episodes as tensors, with a leading axis B and a time axis T.

Windows shorter than T are padded on the RIGHT with zeros; `mask` is True on real steps. No model
here has a window-relative position, so under a causal mask the padding is seen by no real step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """What an algorithm wants of each window: `length` steps of these `columns`.

    `from_start`: training windows begin at their episode's first step, not anywhere.
    `next_observations`: each observation column comes with the one after it, `next_` before its name.
    """

    length: int
    columns: tuple[str, ...]
    from_start: bool = False
    next_observations: bool = False


@dataclass(frozen=True, kw_only=True)
class SequenceBatch:
    """B windows of T steps.

    `columns`: by the store's names, (B, T, ...); floats in float32, raw units (models normalise).
    `timesteps` (B, T) int64 steps since the episode's start. `mask` (B, T) bool, True where real.
    `source` (B,) int64: the dataset a window came from.
    """

    columns: Mapping[str, Tensor]
    timesteps: Tensor
    mask: Tensor
    source: Tensor

    @property
    def observations(self) -> Tensor | dict[str, Tensor]:
        """(B, T, ...), or by leaf name for a Dict space."""
        return self._leaves("observations")

    @property
    def next_observations(self) -> Tensor | dict[str, Tensor]:
        """Those of the step after, where the request asks for them: (B, T, ...), or by leaf name."""
        return self._leaves("next_observations")

    @property
    def actions(self) -> Tensor:
        return self.columns["actions"]

    def _leaves(self, name: str) -> Tensor | dict[str, Tensor]:
        if name in self.columns:
            return self.columns[name]
        prefix = f"{name}/"
        return {n[len(prefix) :]: c for n, c in self.columns.items() if n.startswith(prefix)}

    def __len__(self) -> int:
        return self.mask.shape[0]

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The batch on `device`; unchanged where it is there already."""
        return replace(
            self,
            columns={name: column.to(device) for name, column in self.columns.items()},
            timesteps=self.timesteps.to(device),
            mask=self.mask.to(device),
            source=self.source.to(device),
        )
