"""Where a run's model looks: its attention on held-out windows, as trained and before training.

Legend: B windows, H heads, S tokens that ask, T tokens asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trajlm.algorithms.base import Algorithm
from trajlm.core.errors import DataError
from trajlm.nn.attention_maps import recorded_attention
from trajlm.runs.assembly import Assembly, assemble, load_store
from trajlm.runs.folder import read_run
from trajlm.sequence.batch import SequenceBatch
from trajlm.training.checkpoint import artefact_folder, load_artefact


@dataclass(frozen=True, kw_only=True)
class RunAttention:
    """The mean attention of a model, an array (H, S, T) a layer; `untrained`: of the very weights
    that its training began with. `windows` many were averaged."""

    model: Algorithm
    trained: list[np.ndarray]
    untrained: list[np.ndarray]
    windows: int


def run_attention(folder: Path, *, windows: int) -> RunAttention:
    """The attention of the last checkpoint of the run in `folder`, averaged over `windows` whole
    windows of held-out episodes (of those trained on, where none was held out).

    Raises `DataError` where no episode is as long as a window.
    """
    config = read_run(folder)
    assembly = assemble(config, load_store(config))
    batches = whole_windows(_batches(assembly), count=windows)
    model = load_artefact(artefact_folder(folder, which="last"))
    return RunAttention(
        model=model,
        trained=mean_attention(model, batches),
        untrained=mean_attention(assembly.model, batches),
        windows=sum(map(len, batches)),
    )


def whole_windows(batches: Iterable[SequenceBatch], *, count: int) -> list[SequenceBatch]:
    """The first `count` windows that no end of an episode cuts, in batches. Raises `DataError`."""
    found: list[SequenceBatch] = []
    for batch in batches:
        missing = count - sum(map(len, found))
        if not missing:
            break
        rows = torch.nonzero(batch.mask.all(dim=1)).flatten()[:missing]
        if len(rows):
            found.append(_rows(batch, rows))
    if not found:
        raise DataError("no episode is as long as a window: there is no attention to average")
    return found


@torch.inference_mode()
def mean_attention(model: Algorithm, batches: Iterable[SequenceBatch]) -> list[np.ndarray]:
    """An array (H, S, T) a layer: the mean over all windows of `batches`."""
    model.eval()
    totals: list[np.ndarray] = []
    count = 0
    for batch in batches:
        with recorded_attention(model) as maps:
            model(batch)
        sums = [each.sum(dim=0).double().cpu().numpy() for each in maps]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
        count += len(batch)
    return [total / count for total in totals]


def _batches(assembly: Assembly) -> Iterable[SequenceBatch]:
    if assembly.held_out is not None:
        return assembly.validation()
    return (assembly.loader.batch(step) for step in range(16))


def _rows(batch: SequenceBatch, rows: torch.Tensor) -> SequenceBatch:
    return SequenceBatch(
        columns={name: column[rows] for name, column in batch.columns.items()},
        timesteps=batch.timesteps[rows],
        mask=batch.mask[rows],
        source=batch.source[rows],
    )
