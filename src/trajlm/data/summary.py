"""A dataset in one page of plain JSON: what `data show` prints and a run folder keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trajlm.core.spec import Box, Discrete, leaves, space_to_json
from trajlm.data.statistics import blocks
from trajlm.data.store import TrajectoryStore

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
HISTOGRAM_BINS = 40
# A space's JSON lists its bounds: an image's would be the whole page.
MAX_LISTED_ENTRIES = 512


def summarize(store: TrajectoryStore) -> dict[str, Any]:
    """Dims, episodes, returns, lengths, action range and hash; NaN and infinity become None.

    Returns are those of finished episodes: `return_quantiles` by level ("0.05" -> return),
    `return_histogram` with `edges` (n+1) and `counts` (n), empty where no episode is finished.
    """
    returns = store.finished.returns
    returns = returns[np.isfinite(returns)]
    lengths = store.lengths
    levels = np.quantile(returns, QUANTILES) if len(returns) else np.zeros(0)
    counts, edges = np.zeros(0, np.int64), np.zeros(0)
    if len(returns):
        counts, edges = np.histogram(returns, bins=HISTOGRAM_BINS)
    kept = {k: v for k, v in store.metadata.items() if k not in ("findings", "file_episodes")}
    return {
        "format": "trajlm.dataset/1",
        "name": store.name,
        "env_id": store.env_id,
        "hash": store.content_hash,
        "episodes": len(store),
        "steps": store.num_steps,
        "terminated": int(store.terminated.sum()),
        "truncated": int(store.truncated.sum()),
        "unfinished": int(store.unfinished.sum()),
        "seeds_recorded": int((store.seeds >= 0).sum()),
        "has_last_observation": store.has_last_observation,
        "observation": _space_facts(store, "observations"),
        "action": _space_facts(store, "actions"),
        "action_range": _range(store, "actions"),
        "reward_range": _range(store, "rewards"),
        "lengths": {
            "min": int(lengths.min()) if len(lengths) else None,
            "mean": _number(lengths.mean()) if len(lengths) else None,
            "max": int(lengths.max()) if len(lengths) else None,
        },
        "return_mean": _number(returns.mean()) if len(returns) else None,
        "return_std": _number(returns.std()) if len(returns) else None,
        "return_min": _number(returns.min()) if len(returns) else None,
        "return_max": _number(returns.max()) if len(returns) else None,
        "return_quantiles": {
            f"{level:g}": _number(value) for level, value in zip(QUANTILES, levels, strict=False)
        },
        "return_histogram": {
            "edges": [_number(edge) for edge in edges],
            "counts": [int(count) for count in counts],
        },
        "metadata": {key: _plain(value) for key, value in kept.items()},
    }


def _space_facts(store: TrajectoryStore, side: str) -> dict[str, Any]:
    """Kind, dims and dtype of each leaf; the whole space where its bounds are few."""
    space = store.observation_space if side == "observations" else store.action_space
    found = {}
    entries = 0
    for name, leaf in leaves(space, side).items():
        fact: dict[str, Any] = {"type": type(leaf).__name__, "shape": list(leaf.shape)}
        fact["dtype"] = str(store.segments[0].columns[name].dtype)
        if isinstance(leaf, Box):
            entries += leaf.size
            fact["bounded"] = leaf.bounded
        elif isinstance(leaf, Discrete):
            fact["n"] = leaf.n
        else:
            fact["nvec"] = list(leaf.nvec)
        found[name] = fact
    result: dict[str, Any] = {
        "dims": sum(math.prod(fact["shape"]) for fact in found.values()),
        "leaves": found,
    }
    if entries <= MAX_LISTED_ENTRIES:
        result["space"] = space_to_json(space)
    return result


def _range(store: TrajectoryStore, side: str) -> list[float | None]:
    """The least and greatest finite value over all columns of a side."""
    low, high = math.inf, -math.inf
    for name in store.column_names:
        if name.split("/")[0] == side:
            for block in blocks(store, name):
                finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block
                if finite.size:
                    low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return [_number(low), _number(high)]


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _plain(value: object) -> object:
    """JSON without NaN: what is no plain value is written as text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    return _number(value) if isinstance(value, float | np.floating) else str(value)
