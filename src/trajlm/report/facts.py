"""What was run, as (label, value) pairs and as the commands that repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from statistics import median
from typing import Any

from trajlm.report.formatting import ABSENT, amount, asked, finite, plain
from trajlm.report.readings import planned_updates
from trajlm.report.records import Entry, Run

SHIPPED_DATASET = re.compile(r"trajlm/([a-z0-9]+)/([a-z-]+)-v0")


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
        ("Training time", duration(entry)),
        ("Training precision", plain(_part(meta, "precision").get("name"))),
        ("Parameters", amount(meta.get("parameters"))),
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
    planned = planned_updates(entry)
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
            found.append(str(seed) if isinstance(seed, int) else plain(seed))
    return found


def speed(entry: Entry) -> str:
    """Updates per second as the trainer measured them, else the median of the log."""
    found = [finite(_part(run.meta, "training").get("updates_per_s")) for run in entry.runs]
    rates = [rate for rate in found if rate is not None]
    if not rates:
        rates = [
            v for run in entry.runs for v in run.metrics.get("perf/updates_per_s", {}).values()
        ]
    return f"{amount(median(rates))} updates/s" if rates else ABSENT


def duration(entry: Entry) -> str:
    """Time spent training, of the longest run."""
    found = [finite(_part(run.meta, "training").get("seconds")) for run in entry.runs]
    seconds = max((value for value in found if value is not None), default=None)
    if seconds is None:
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
    shipped = SHIPPED_DATASET.search(dataset_name(entry))
    if shipped:
        steps = finite(entry.dataset.get("steps"))
        flag = "" if steps is None else f" --steps {int(steps)}"
        found.append(("make the dataset", f"trajlm collect {shipped[1]}/{shipped[2]}{flag}"))
    typed = typed_command(entry)
    if typed:
        found.append(("what was typed", typed))
    if not any(run.config for run in entry.runs):
        return [*found, ("write this page", f"trajlm report {path}")]
    settings = entry.folder if (entry.folder / "run.yaml").is_file() else entry.runs[0].folder
    inner = "" if settings == entry.folder else f"/{shlex.quote(settings.name)}"
    also = f" --seeds {len(entry.runs)}" if entry.is_group and len(entry.runs) > 1 else ""
    line = f"trajlm train {path}{inner}/run.yaml{also} --name repeated"
    found.append(("train again, with every setting as it was", line))
    targets = [t for r in entry.rows if (t := finite(r.get("target_return"))) is not None]
    line = f"trajlm evaluate {path}"
    if targets:
        line += " --policy.target-return " + " ".join(f"{t:.10g}" for t in dict.fromkeys(targets))
    episodes = finite(entry.protocol.get("episodes"))
    if episodes is not None:
        line += f" --evaluation.episodes {int(episodes)}"
    return [*found, ("evaluate again", line), ("write this page", f"trajlm report {path}")]


def typed_command(entry: Entry) -> str | None:
    """The command line as typed; None for a group, whose seeds are started by its own process."""
    typed = entry.meta.get("command")
    if entry.is_group or not isinstance(typed, list) or len(typed) < 2:
        return None
    words = [plain(word) for word in typed]
    if words[0] in ("main.py", "__main__.py"):
        words[0] = "trajlm"
    return shlex.join(words) if words[0] == "trajlm" else None


def dataset_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The dataset's summary as pairs; what it does not say is left out."""
    lengths = _part(summary, "lengths")
    ends = [("terminated", "by the task"), ("truncated", "by the time limit")]
    ends += [("unfinished", "cut off by the end of the file")]
    ended = [f"{amount(summary[k])} {how}" for k, how in ends if finite(summary.get(k))]
    found = [
        ("Environment", plain(summary.get("env_id"))),
        ("Episodes", amount(summary.get("episodes"))),
        ("Steps", amount(summary.get("steps"))),
        ("Episodes ended", ", ".join(ended) or ABSENT),
        (
            "Length of an episode, steps",
            _extent(lengths.get("min"), lengths.get("max"), lengths.get("mean")),
        ),
        (
            "Return of an episode",
            _extent(*(summary.get(f"return_{k}") for k in ("min", "max", "mean"))),
        ),
        ("Observations", _space(_part(summary, "observation"))),
        ("Actions", _space(_part(summary, "action"))),
        ("Actions lie", _extent(*_two(summary.get("action_range")))),
        ("Rewards lie", _extent(*_two(summary.get("reward_range")))),
        ("Episodes whose seed is known", amount(summary.get("seeds_recorded"))),
        ("Last observation of an episode", _kept(summary.get("has_last_observation"))),
        ("SHA-256 of the columns", plain(summary.get("hash"))[:16]),
    ]
    return [(label, text) for label, text in found if text != ABSENT]


def _extent(low: Any, high: Any, mean: Any = None) -> str:
    if finite(low) is None or finite(high) is None:
        return ABSENT
    if low == high:
        return amount(low)
    middle = "" if finite(mean) is None else f", mean {amount(mean)}"
    return f"from {amount(low)} to {amount(high)}{middle}"


def _two(values: Any) -> tuple[Any, Any]:
    return tuple(values) if isinstance(values, list) and len(values) == 2 else (None, None)


def _kept(value: Any) -> str:
    return ABSENT if value is None else "kept" if value else "not in the file"


def _space(side: Mapping[str, Any]) -> str:
    """'17 numbers (float32)', or every leaf of a Dict space."""
    leaves = side.get("leaves")
    if not isinstance(leaves, dict):
        return ABSENT
    words = []
    for name, leaf in leaves.items():
        shape = leaf.get("shape") if isinstance(leaf, dict) else None
        if not isinstance(shape, list):
            continue
        size = " × ".join(plain(n) for n in shape) or "1"
        choices = f" of {plain(leaf['n'])} choices" if "n" in leaf else ""
        path = f"{plain(name).partition('/')[2]}: " if len(leaves) > 1 else ""
        words.append(
            f"{path}{size}{choices} ({plain(leaf.get('type'))}, {plain(leaf.get('dtype'))})"
        )
    return "; ".join(words) or ABSENT


def title(entries: list[Entry]) -> str:
    """'Decision Transformer on HalfCheetah-v5', or how many runs are compared."""
    if len(entries) > 1:
        return f"{len(entries)} runs compared"
    name, place = algorithm(entries[0]), environment(entries[0])
    if name == ABSENT:
        return entries[0].name
    return name if place == ABSENT else f"{name} on {place}"


def missing_evaluation(run: Run | None) -> str:
    """Why a run has no scores, and the way out."""
    if run is None:
        return "No evaluation: no training seed has started."
    path = f"{run.folder.parent.name}/{run.folder.name}"
    planned, made = planned_updates(run), run.last_step
    if made is None:
        return f"No evaluation, and no update was logged: see {path}/train.log."
    if planned is not None and made < planned:
        return (
            f"No evaluation: training stopped at update {amount(made)} of {amount(planned)}. "
            f"'trajlm train --resume {path}' continues it."
        )
    return f"No evaluation yet: 'trajlm evaluate {path}' makes one."


PROTOCOL_NAMES = {
    "env_id": "Environment",
    "mujoco": "MuJoCo",
    "gymnasium": "Gymnasium",
    "torch": "PyTorch",
    "trajlm": "trajlm",
    "guide": "Guided by the critic of",
    "targets": "Returns asked for",
    "data_hash": "SHA-256 of the data",
    "num_envs": "Environments at once",
    "checkpoint_step": "Update of the checkpoint",
    "precision": "Precision of actions",
}


def protocol_facts(entry: Entry) -> list[tuple[str, str]]:
    """All that the results say about how they were measured, and how long it took."""
    found = [
        (PROTOCOL_NAMES.get(key, key.replace("_", " ").capitalize()), _protocol_value(key, value))
        for key, value in entry.protocol.items()
        if value is not None
    ]
    evaluation = next((run.evaluation for run in entry.runs if run.evaluation), None)
    timing = evaluation.timing if evaluation else {}
    names = {
        "total_seconds": "in all",
        "model_seconds": "the model",
        "physics_seconds": "the physics",
    }
    spent = [f"{text} {amount(timing[k])} s" for k, text in names.items() if finite(timing.get(k))]
    if spent:
        found.append(("Time of the evaluation", ", ".join(spent)))
    if finite(timing.get("steps_per_second")):
        found.append(("Environment steps per second", amount(timing["steps_per_second"])))
    return found


def _protocol_value(key: str, value: Any) -> str:
    if key == "targets" and isinstance(value, list):
        return ", ".join(asked(target) for target in value)
    if key == "data_hash":
        return plain(value)[:16]
    # A seed is a name, not a quantity: no thousands separator.
    return str(value) if key.endswith("seed") and isinstance(value, int) else plain(value)


def _first(key: str, *mappings: Mapping[str, Any]) -> Any:
    return next((m[key] for m in mappings if m.get(key) is not None), None)


def _part(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}
