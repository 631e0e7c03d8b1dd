"""Score a policy: every target in one batch, the same episodes for each, results as plain files.

`results.json` ("trajlm.results/1") holds the protocol and a row for each target, `episodes.csv`
one line an episode, so that every number can be recomputed from its episodes.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import logging
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import trajlm
from trajlm.core.errors import EnvironmentFault, UsageError
from trajlm.core.files import json_bytes, replace_file
from trajlm.core.formats import RESULTS_FORMAT
from trajlm.core.protocols import Condition, Policy
from trajlm.core.spec import DataSpec
from trajlm.envs.make import check_spaces, make_vector
from trajlm.evaluation.config import EvaluationConfig
from trajlm.evaluation.rollout import EpisodeRecord, Progress, Rollout, rollout
from trajlm.evaluation.scores import (
    D4RL_REFERENCES,
    Interval,
    body_of,
    bootstrap_interval,
    dataset_score,
    interquartile_mean,
)

logger = logging.getLogger(__name__)

EPISODE_COLUMNS = (
    *("target_return", "episode", "seed", "return", "length"),
    *("terminated", "truncated", "failed"),
)
_MAX_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class TargetEpisode:
    """An episode with the target it was asked for (None: the policy's own) and its number."""

    target_return: float | None
    episode: int
    record: EpisodeRecord


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The protocol, a row for each target, every episode, and where the time went (seconds)."""

    protocol: Mapping[str, Any]
    rows: list[dict[str, Any]]
    episodes: list[TargetEpisode]
    timing: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": RESULTS_FORMAT,
            "protocol": dict(self.protocol),
            "rows": self.rows,
            "timing": dict(self.timing),
        }


def episode_seed(seed: int, episode: int) -> int:
    """The seed episode number `episode` is reset with, whatever the target."""
    return seed + episode


def evaluate(
    policy: Policy,
    *,
    spec: DataSpec | None,
    env_id: str,
    targets: Sequence[float | None],
    config: EvaluationConfig,
    dataset_reference: Interval | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run `config.episodes` episodes for each target and score them.

    `targets` [None] asks for nothing: the policy's own condition applies. `dataset_reference`:
    the mean returns of the random and the expert behaviour. `facts` join the protocol (algorithm,
    recipe, dataset, ...). Raises `EnvironmentFault` where the environment is missing or does not
    fit `spec`, and, under `config.strict`, where an episode failed.
    """
    if not targets or (None in targets and len(targets) > 1):
        raise UsageError(f"targets: {list(targets)} is neither returns nor one 'nothing asked'")
    episodes: list[TargetEpisode] = []
    runs: list[Rollout] = []
    groups = plan(len(targets), episodes=config.episodes, num_envs=config.num_envs)
    for number, group in enumerate(groups):
        with_share = _within(progress, number, len(groups))
        run = _run_group(policy, group, spec, env_id, targets, config, with_share)
        runs.append(run)
        for (target, numbers), records in zip(group, run.episodes, strict=True):
            for episode, record in zip(numbers, records, strict=True):
                episodes.append(
                    TargetEpisode(target_return=targets[target], episode=episode, record=record)
                )
    order = {target: position for position, target in enumerate(targets)}
    episodes.sort(key=lambda e: (order[e.target_return], e.episode))
    rows = [
        score_row(
            [e for e in episodes if e.target_return == target],
            env_id=env_id,
            dataset_reference=dataset_reference,
            seed=config.seed,
        )
        for target in dict.fromkeys(targets)
    ]
    _report_failures(episodes, env_id=env_id, strict=config.strict)
    protocol = _protocol(env_id, targets=targets, config=config, facts=facts or {})
    return Evaluation(protocol=protocol, rows=rows, episodes=episodes, timing=_timing(runs))


Group = list[tuple[int, list[int]]]
"""Slots that run together: a target's index and the numbers of the episodes the slot runs."""


def plan(targets: int, *, episodes: int, num_envs: int | None) -> list[Group]:
    """Which slot runs which episodes of which target, in groups of at most `num_envs` slots.

    Slots of a target are no more than its rounds need, so that the last round is not half empty.
    """
    batch = num_envs or min(_MAX_BATCH, targets * episodes)
    together = min(targets, batch)
    rounds = -(-episodes // max(1, batch // together))
    slots = -(-episodes // rounds)
    return [
        [
            (target, list(range(slot, episodes, slots)))
            for target in range(first, min(first + together, targets))
            for slot in range(slots)
        ]
        for first in range(0, targets, together)
    ]


def score_row(
    episodes: Sequence[TargetEpisode],
    *,
    env_id: str,
    dataset_reference: Interval | None,
    seed: int,
) -> dict[str, Any]:
    """One target's row of `results.json`. Failed episodes are counted and left out of the means.

    Normalised scores map the return and its interval by their reference; null where none applies.
    `return_std` is over episodes (divisor n).
    """
    sound = [e.record for e in episodes if not e.record.failed]
    returns = np.array([record.episode_return for record in sound])
    mean = float(returns.mean()) if len(returns) else None
    interval = bootstrap_interval(returns, seed=seed)
    body = body_of(env_id)
    row: dict[str, Any] = {
        "target_return": episodes[0].target_return,
        "episodes": len(episodes),
        "failed": len(episodes) - len(sound),
        "return_mean": mean,
        "return_std": float(returns.std()) if len(returns) else None,
        "return_iqm": interquartile_mean(returns) if len(returns) else None,
        "return_interval": interval,
        "interval_kind": "95% bootstrap over episodes",
        "length_mean": float(np.mean([r.length for r in sound])) if sound else None,
    }
    references = {"d4rl": D4RL_REFERENCES.get(body or ""), "dataset": dataset_reference}
    for name, reference in references.items():
        row[f"{name}_score"] = _scaled(mean, reference)
        row[f"{name}_interval"] = _scaled(interval, reference)
    return row | {"env_id": env_id, "mujoco": _version("mujoco")}


def write_results(folder: Path, evaluation: Evaluation) -> Path:
    """Write `results.json` and `episodes.csv` into `folder`, each whole or not at all."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(EPISODE_COLUMNS)
    for episode in evaluation.episodes:
        record = episode.record
        target = "" if episode.target_return is None else episode.target_return
        writer.writerow(
            [target, episode.episode, record.seed, repr(record.episode_return), record.length]
            + [int(flag) for flag in (record.terminated, record.truncated, record.failed)]
        )
    path = folder / "results.json"
    replace_file(folder / "episodes.csv", table.getvalue().encode())
    replace_file(path, json_bytes(evaluation.to_json()))
    return path


def _run_group(
    policy: Policy,
    group: Group,
    spec: DataSpec | None,
    env_id: str,
    targets: Sequence[float | None],
    config: EvaluationConfig,
    progress: Progress | None,
) -> Rollout:
    environment = make_vector(env_id, num_envs=len(group), tolerate_failures=True)
    try:
        if spec is not None:
            check_spaces(spec, environment)
        asked = [targets[target] for target, _ in group]
        return rollout(
            policy,
            environment=environment,
            conditions=None if None in asked else Condition(target_return=np.array(asked, float)),
            seeds=[[episode_seed(config.seed, e) for e in numbers] for _, numbers in group],
            progress=progress,
        )
    finally:
        environment.close()


def _within(progress: Progress | None, number: int, count: int) -> Progress | None:
    return None if progress is None else lambda share: progress((number + share) / count)


def _scaled(value: float | Interval | None, reference: Interval | None) -> Any:
    if value is None or reference is None:
        return None
    low, high = reference
    return dataset_score(np.asarray(value), low=low, high=high).tolist()


def _report_failures(episodes: Sequence[TargetEpisode], *, env_id: str, strict: bool) -> None:
    failed = [e.record for e in episodes if e.record.failed]
    if not failed:
        return
    message = (
        f"{env_id}: {len(failed)} of {len(episodes)} episodes failed; the first, seed "
        f"{failed[0].seed}: {failed[0].failure}"
    )
    if strict:
        raise EnvironmentFault(message)
    logger.warning("%s; they are left out of the means", message)


def _protocol(
    env_id: str,
    *,
    targets: Sequence[float | None],
    config: EvaluationConfig,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    torch = sys.modules.get("torch")
    return {
        "env_id": env_id,
        "mujoco": _version("mujoco"),
        "gymnasium": _version("gymnasium"),
        "torch": _version("torch"),
        "trajlm": trajlm.__version__,
        "targets": list(targets),
        "episodes": config.episodes,
        "evaluation_seed": config.seed,
        "num_envs": config.num_envs,
        "precision": config.precision,
        "threads": torch.get_num_threads() if torch is not None else 1,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **facts,
    }


def _timing(runs: Sequence[Rollout]) -> dict[str, float]:
    totals = {
        name: sum(getattr(run, name) for run in runs)
        for name in ("total_seconds", "model_seconds", "physics_seconds", "steps", "forwards")
    }
    totals["steps_per_second"] = totals["steps"] / max(totals["total_seconds"], 1e-9)
    return {name: round(value, 3) for name, value in totals.items()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
