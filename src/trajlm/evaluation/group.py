"""One table of several runs that differ in their training seed: intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.files import json_bytes, replace_file
from trajlm.core.formats import GROUP_FORMAT
from trajlm.evaluation.protocol import AVERAGED, TRAINED, refuse_mixed
from trajlm.evaluation.scores import bootstrap_interval


def group_rows(
    results: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row for each target from the `results.json` mappings of several runs, called `names`.

    Means are over the runs' means, intervals a bootstrap over runs; with three runs an interval
    says little more than their range, which `return_means` spells out. Raises `DataError` where
    the runs were not measured alike (`trajlm.evaluation.protocol`).
    """
    if not results:
        raise DataError("no runs to group")
    names = names or [f"run {number}" for number in range(len(results))]
    protocols = [result["protocol"] for result in results]
    last = all(protocol.get("checkpoint") == "last" for protocol in protocols)
    refuse_mixed(protocols, names=names, fields=TRAINED if last else AVERAGED)
    tables = [{row["target_return"]: row for row in result["rows"]} for result in results]
    return [_grouped([table[key] for table in tables], seed=seed) for key in tables[0]]


def write_group(path: Path, *, runs: Sequence[str], results: Sequence[Mapping[str, Any]]) -> Path:
    """Write the group's `results.json`; `runs` are the run folders relative to it."""
    protocol = {k: v for k, v in results[0]["protocol"].items() if k != "training_seed"}
    table = {
        "format": GROUP_FORMAT,
        "runs": list(runs),
        "protocol": protocol,
        "rows": group_rows(results, names=runs),
    }
    replace_file(path, json_bytes(table))
    return path


def _grouped(rows: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    grouped: dict[str, Any] = {
        "target_return": rows[0]["target_return"],
        "seeds": len(rows),
        "episodes": sum(row["episodes"] for row in rows),
        "failed": sum(row["failed"] for row in rows),
        "return_means": [row["return_mean"] for row in rows],
        "interval_kind": "95% bootstrap over training seeds",
    }
    for name in ("return", "d4rl", "dataset"):
        column = "return_mean" if name == "return" else f"{name}_score"
        values = [row[column] for row in rows if row[column] is not None]
        grouped[column] = float(np.mean(values)) if values else None
        grouped[f"{name}_interval"] = bootstrap_interval(values, seed=seed)
        if name == "return":
            grouped["return_std"] = float(np.std(values)) if values else None
    lengths = [row["length_mean"] for row in rows if row["length_mean"] is not None]
    grouped["length_mean"] = float(np.mean(lengths)) if lengths else None
    return grouped | {"env_id": rows[0]["env_id"], "mujoco": rows[0]["mujoco"]}
