"""Where a model predicts well: the held-out loss by the return of the episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajlm.algorithms.base import Algorithm
from trajlm.data.store import TrajectoryStore
from trajlm.sequence.batch import WindowRequest
from trajlm.sequence.loader import validation_batches
from trajlm.training.held_out import held_out_loss
from trajlm.training.precision import choose_precision

DECILES = 10


def loss_by_return(
    model: Algorithm,
    held_out: TrajectoryStore,
    request: WindowRequest,
    *,
    returns: np.ndarray,
    batch_size: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each decile of `returns` (E,), those of the whole dataset, with held-out episodes.

    Rows hold the decile's number (1 the lowest), its bounds, the episodes in it and their mean loss
    in float32. Deciles without a held-out episode have no row; where returns are equal, deciles
    coincide and there are fewer.
    """
    edges = np.unique(np.quantile(returns, np.linspace(0, 1, DECILES + 1)))
    inner = edges[1:-1]
    places = np.searchsorted(inner, held_out.returns, side="right")
    device = next(model.parameters()).device
    precision = choose_precision("float32", device=device)
    was_training = model.training
    model.eval()
    rows = []
    for place in np.unique(places):
        chosen = np.flatnonzero(places == place)
        loss = held_out_loss(
            model,
            validation_batches(held_out.select(chosen), request, batch_size=batch_size),
            seed=seed,
            device=device,
            precision=precision,
        )
        low, high = edges[place], edges[min(place + 1, len(edges) - 1)]
        row = {"decile": int(place) + 1, "low": float(low), "high": float(high)}
        rows.append({**row, "episodes": len(chosen), "loss": loss})
    model.train(was_training)
    return rows
