"""Batches from a store: the batch at a step is a pure function of
(seed, step, rank, world, store version), so there is no state to save and a resumed run sees the
same data. One gather a column, no copies besides.

Legend: B windows, T their length.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from trajlm.core.errors import DataError
from trajlm.core.seeding import counter_bits
from trajlm.data.store import TrajectoryStore, is_observation
from trajlm.sequence.batch import SequenceBatch, WindowRequest
from trajlm.sequence.windows import Windows, sample_windows, tile_windows


class Gatherer:
    """Turns windows of one store into a batch."""

    def __init__(self, store: TrajectoryStore, request: WindowRequest) -> None:
        missing = [name for name in request.columns if name not in store.column_names]
        if missing:
            raise DataError(
                f"dataset {store.name!r} has no column {missing[0]!r}; it has {store.column_names}"
            )
        self.store, self.request = store, request
        self.lengths = store.lengths
        self.first_rows = {name: store.first_rows(name) for name in request.columns}

    def batch(self, windows: Windows) -> SequenceBatch:
        """The windows' rows, zero where they reach past their episode's end.

        Where the dataset lacks an episode's last observation, that of its last step stands in for
        the one after it.
        """
        offsets = windows.start[:, None] + np.arange(self.request.length)  # (B, T)
        lengths = self.lengths[windows.episode][:, None]
        mask = offsets < lengths
        inside = np.where(mask, offsets, windows.start[:, None])
        after = np.minimum(inside + 1, lengths - 1 + int(self.store.has_last_observation))
        columns = {}
        for name in self.request.columns:
            columns[name] = self._rows(name, windows.episode, inside, mask)
            if self.request.next_observations and is_observation(name):
                columns[f"next_{name}"] = self._rows(name, windows.episode, after, mask)
        return SequenceBatch(
            columns=columns,
            timesteps=torch.from_numpy(np.where(mask, offsets, 0)),
            mask=torch.from_numpy(mask),
            source=torch.full((len(mask),), self.store.source),
        )

    def _rows(
        self, name: str, episode: np.ndarray, steps: np.ndarray, mask: np.ndarray
    ) -> torch.Tensor:
        """Rows (B, T, ...) of a column at `steps` (B, T) of the episodes (B,), zero off the mask."""
        rows = self.store.gather(name, self.first_rows[name][episode][:, None] + steps)
        rows[~mask] = 0
        return torch.from_numpy(rows)


class Loader:
    """Sampled training batches of one rank of `world`; `early_share` as of `sample_windows`."""

    def __init__(
        self,
        store: TrajectoryStore,
        request: WindowRequest,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        early_share: float = 0.0,
    ) -> None:
        if store.num_steps == 0:
            raise DataError(f"dataset {store.name!r} has no steps to train on")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not in 0..{world - 1}")
        self.gatherer = Gatherer(store, request)
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self.early_share = early_share

    def batch(self, step: int) -> SequenceBatch:
        """The batch of update `step`; all ranks together draw `world` x `batch_size` windows."""
        windows = sample_windows(
            self.gatherer.lengths,
            batch_size=self.batch_size,
            seed=self.seed,
            step=step,
            rank=self.rank,
            version=self.gatherer.store.version,
            from_start=self.gatherer.request.from_start,
            early_share=self.early_share,
        )
        return self.gatherer.batch(windows)


def validation_batches(
    store: TrajectoryStore, request: WindowRequest, *, batch_size: int, max_batches: int = 16
) -> Iterator[SequenceBatch]:
    """The held-out windows, always the same ones.

    Every step once, in order; where that is more than `max_batches` batches, windows chosen once
    by a fixed draw over them all.
    """
    windows = tile_windows(store.lengths, length=request.length)
    count = len(windows.start)
    if count > max_batches * batch_size:
        order = np.argsort(counter_bits(0, np.arange(count)), kind="stable")
        chosen = np.sort(order[: max_batches * batch_size])
        windows = Windows(windows.episode[chosen], windows.start[chosen])
    gatherer = Gatherer(store, request)
    for first in range(0, len(windows.start), batch_size):
        part = slice(first, first + batch_size)
        yield gatherer.batch(Windows(windows.episode[part], windows.start[part]))
