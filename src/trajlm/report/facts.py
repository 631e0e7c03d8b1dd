"""What was run, as (label, value) pairs and as the commands that repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from statistics import median
from typing import Any

from trajlm.report.formatting import ABSENT, amount, finite, plain
from trajlm.report.readings import planned_updates
from trajlm.report.records import Entry, Run

SHIPPED_DATASET = re.compile(r"trajlm/([a-z0-9]+)/([a-z-]+)-v0")
HIDDEN = ("return_histogram", "return_quantiles")
ROBOTS = {"halfcheetah": "HalfCheetah", "hopper": "Hopper", "walker2d": "Walker2d"}


def facts(entry: Entry) -> list[tuple[str, str]]:
    """The headline's facts; what nobody recorded is left out."""
    protocol, config, meta = entry.protocol, entry.config, entry.meta
    found = [
        ("Algorithm", algorithm(entry)),
        ("Recipe", plain(protocol.get("recipe") or config.get("recipe"))),
        ("Dataset", dataset_name(entry)),
        ("Updates", updates(entry)),
        ("Training seeds", ", ".join(seeds(entry)) or ABSENT),
        ("Training speed", speed(entry)),
        ("Environment", environment(entry)),
        ("MuJoCo", plain(_first("mujoco", protocol, *entry.rows, _part(meta, "versions")))),
        ("Machine", plain(protocol.get("machine") or meta.get("machine"))),
        ("Versions", versions(entry)),
        ("Code", plain(meta.get("git"))),
    ]
    return [(label, value) for label, value in found if value != ABSENT]


def algorithm(entry: Entry) -> str:
    """The algorithm's name in words: 'decision_transformer' -> 'Decision Transformer'."""
    name = plain(entry.protocol.get("algorithm") or entry.config.get("algorithm"))
    return name.replace("_", " ").title() if re.fullmatch(r"[a-z0-9_]+", name) else name


def environment(entry: Entry) -> str:
    """The environment's id, from the results, the configuration or the dataset."""
    data = _part(entry.config, "data")
    return plain(_first("env_id", entry.protocol, *entry.rows, data, entry.dataset))


def dataset_name(entry: Entry) -> str:
    data = _part(entry.config, "data")
    return plain(entry.protocol.get("dataset") or data.get("path") or entry.dataset.get("name"))


def updates(entry: Entry) -> str:
    """Updates made, and of how many planned where they differ."""
    made = finite(entry.protocol.get("updates"))
    if made is None:
        made = max((run.last_step for run in entry.runs if run.last_step is not None), default=None)
    planned = planned_updates(entry.config)
    if made is None:
        return ABSENT
    return amount(made) if planned in (None, made) else f"{amount(made)} of {amount(planned)}"


def seeds(entry: Entry) -> list[str]:
    """Each run's training seed."""
    found = []
    for run in entry.runs:
        protocol = run.evaluation.protocol if run.evaluation else {}
        seed = _first("training_seed", protocol)
        seed = _first("seed", run.meta, run.config) if seed is None else seed
        if seed is not None:
            found.append(plain(seed))
    return found


def speed(entry: Entry) -> str:
    """The median of the logged updates per second."""
    values = [v for run in entry.runs for v in run.metrics.get("perf/updates_per_s", {}).values()]
    return f"{amount(median(values))} updates/s (median)" if values else ABSENT


def versions(entry: Entry) -> str:
    """'trajlm 0.1.0, torch 2.13.0, gymnasium 1.4.0, Python 3.11.7'."""
    known = dict(_part(entry.meta, "versions"))
    known |= {k: entry.protocol[k] for k in ("trajlm", "torch", "gymnasium") if k in entry.protocol}
    known["Python"] = entry.meta.get("python") or known.pop("python", None)
    names = [n for n in ("trajlm", "torch", "numpy", "gymnasium", "Python") if known.get(n)]
    return ", ".join(f"{name} {plain(known[name])}" for name in names) or ABSENT


def commands(entry: Entry) -> list[tuple[str, str]]:
    """(what it does, shell line) to repeat the run from nothing."""
    path = shlex.quote(f"{entry.folder.parent.name}/{entry.folder.name}")
    found = []
    typed = entry.meta.get("command")
    collected = SHIPPED_DATASET.search(dataset_name(entry))
    if collected:
        steps = _first("num_steps", entry.dataset)
        steps = finite(_first("steps", entry.dataset) if steps is None else steps)
        flag = "" if steps is None else f" --steps {int(steps)}"
        found.append(("make the dataset", f"trajlm collect {collected[1]}/{collected[2]}{flag}"))
    if isinstance(typed, list) and typed:
        found.append(("what was typed", shlex.join(plain(part) for part in typed)))
    elif isinstance(typed, str):
        found.append(("what was typed", plain(typed)))
    if any(run.config for run in entry.runs):
        first = path if not entry.is_group else f"{path}/{shlex.quote(entry.runs[0].folder.name)}"
        also = f" --seeds {len(entry.runs)}" if len(entry.runs) > 1 else ""
        found.append(
            ("train again, from the resolved configuration", f"trajlm train {first}/run.yaml{also}")
        )
    targets = [t for r in entry.rows if (t := finite(r.get("target_return"))) is not None]
    episodes = finite(entry.rows[0].get("episodes")) if entry.rows else None
    line = f"trajlm evaluate {path}"
    if targets:
        line += " --policy.target-return " + " ".join(f"{t:g}" for t in dict.fromkeys(targets))
    if episodes is not None and not entry.is_group:
        line += f" --episodes {int(episodes)}"
    if any(run.config for run in entry.runs):
        found.append(("evaluate again", line))
    return [*found, ("write this page", f"trajlm report {path}")]


def dataset_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The dataset's summary as pairs; nested mappings become 'outer: inner'."""
    found = []
    for key, value in summary.items():
        if key in HIDDEN or value is None:
            continue
        label = str(key).replace("_", " ")
        if isinstance(value, dict):
            inner = [f"{str(k).replace('_', ' ')} {plain(v, limit=120)}" for k, v in value.items()]
            found.append((label, "; ".join(inner[:12])))
        else:
            found.append((label, plain(value, limit=200)))
    return [(label, text) for label, text in found if text]


def title(entries: list[Entry]) -> str:
    """'Decision Transformer on HalfCheetah-v5', or how many runs are compared."""
    if len(entries) > 1:
        return f"{len(entries)} runs compared"
    name, place = algorithm(entries[0]), environment(entries[0])
    if name == ABSENT:
        return entries[0].name
    return name if place == ABSENT else f"{name} on {place}"


def missing_evaluation(run: Run) -> str:
    """Why a run has no scores, and the way out."""
    path = f"{run.folder.parent.name}/{run.folder.name}"
    planned, made = planned_updates(run.config), run.last_step
    if made is None:
        return f"No evaluation, and no update was logged: see {path}/train.log."
    if planned is not None and made < planned:
        return (
            f"No evaluation: training stopped at update {amount(made)} of {amount(planned)}. "
            f"'trajlm train --resume {path}' continues it."
        )
    return f"No evaluation yet: 'trajlm evaluate {path}' makes one."


def _first(key: str, *mappings: Mapping[str, Any]) -> Any:
    return next((m[key] for m in mappings if m.get(key) is not None), None)


def _part(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}
