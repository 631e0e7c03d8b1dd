"""A group: one configuration trained with several seeds, and one table over them.

Each seed is a process of its own with its share of the cores: on two cores two processes of one
thread make more updates together than one after the other with two threads. A group that was
interrupted is continued by running it again with `resuming`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trajlm.core.errors import CheckpointError
from trajlm.core.formats import GROUP_FORMAT
from trajlm.core.machine import available_cores
from trajlm.evaluation.group import write_group
from trajlm.runs.assembly import examine, load_store
from trajlm.runs.config import RunConfig
from trajlm.runs.folder import (
    RESULTS_FILE,
    RUN_FILE,
    create_folder,
    read_json,
    read_run,
    refuse_existing,
    write_json,
)
from trajlm.runs.processes import CommandFailed, Job, last_step, run_side_by_side
from trajlm.runs.scoring import Progress, evaluate_run, evaluation_folder

GROUP_FILE = "group.json"

logger = logging.getLogger(__name__)


def is_group(folder: Path) -> bool:
    """Whether `folder` holds a group of seeds."""
    return (folder / GROUP_FILE).is_file()


def train_group(
    config: RunConfig,
    *,
    folder: Path,
    seeds: Sequence[int] = (),
    resuming: bool = False,
    progress: Progress | None = None,
) -> Mapping[str, Any] | None:
    """Train and evaluate `config` with each seed; the group's results.json, None without scores.

    Raises `CommandFailed` with a failed seed's exit code after the others have ended, and
    `Interrupted` after a signal was passed on and every seed has saved.
    """
    if resuming:
        seeds = read_seeds(folder)
    else:
        refuse_existing(folder)
    examine(load_store(config), config)
    if not resuming:
        create_folder(folder, {RUN_FILE: config.to_yaml()})
        write_json(folder / GROUP_FILE, {"format": GROUP_FORMAT, "seeds": list(seeds)})
    at_once = min(len(seeds), available_cores())
    threads = config.threads or max(1, available_cores() // at_once)
    logger.info("%d seeds, %d at a time with %d threads each", len(seeds), at_once, threads)
    _train_all(config, folder, seeds, at_once=at_once, threads=threads, progress=progress)
    return summarize_group(folder)


def evaluate_group(
    folder: Path,
    *,
    config: RunConfig | None = None,
    env_id: str | None = None,
    checkpoint: str = "last",
    guide: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Mapping[str, Any]:
    """Evaluate every seed's run again and write the group's table. `guide`: of all of them."""
    results = []
    seeds = read_seeds(folder)
    for seed in seeds:
        run = seed_folder(folder, seed)
        asked = replace(config or read_run(run), seed=seed)
        if seed != seeds[0]:  # one video shows what a group does
            asked = replace(asked, evaluation=replace(asked.evaluation, video=False))
        evaluation, _ = evaluate_run(
            run,
            config=asked,
            env_id=env_id,
            checkpoint=checkpoint,
            guide=guide,
            device=device,
            progress=progress,
        )
        results.append(evaluation.to_json())
    runs = [seed_folder(folder, seed).name for seed in seeds]
    return read_json(write_group(folder / RESULTS_FILE, runs=runs, results=results))


def summarize_group(folder: Path) -> Mapping[str, Any] | None:
    """Write the group's results.json from its seeds' final scores; None where there are none."""
    runs = [seed_folder(folder, seed) for seed in read_seeds(folder)]
    files = [evaluation_folder(run, read_run(run).training.steps) / RESULTS_FILE for run in runs]
    if not all(file.is_file() for file in files):
        return None
    results = [read_json(file) for file in files]
    names = [run.name for run in runs]
    return read_json(write_group(folder / RESULTS_FILE, runs=names, results=results))


def read_seeds(folder: Path) -> list[int]:
    seeds = read_json(folder / GROUP_FILE).get("seeds")
    if not isinstance(seeds, list) or not seeds or not all(isinstance(s, int) for s in seeds):
        raise CheckpointError(f"{folder / GROUP_FILE}: 'seeds' is no list of numbers")
    return seeds


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


# ---- processes ----------------------------------------------------------------------------------


def _train_all(
    config: RunConfig,
    folder: Path,
    seeds: Sequence[int],
    *,
    at_once: int,
    threads: int,
    progress: Progress | None,
) -> None:
    failed: dict[int, CommandFailed] = {}

    def ended(job: Job, status: int) -> bool:
        if status:
            failed[jobs.index(job)] = job.failure(status)
        return not status

    def waiting() -> None:
        if progress is not None:
            progress(*_progress(config, folder, seeds))

    jobs = [_job(folder, seed, threads=threads, first=seed == seeds[0]) for seed in seeds]
    run_side_by_side(
        jobs,
        at_once=at_once,
        threads=threads,
        ended=ended,
        waiting=waiting,
        way_on=f"continue with trajlm train --resume {folder}",
    )
    if failed:
        raise failed[min(failed)]


def _job(folder: Path, seed: int, *, threads: int, first: bool) -> Job:
    run = seed_folder(folder, seed)
    arguments = ["train"]
    if (run / RUN_FILE).is_file():
        arguments += ["--resume", str(run)]
    else:
        arguments += [str(folder / RUN_FILE), "--output", str(folder), "--name", run.name]
        arguments += ["--seed", str(seed), "--threads", str(threads)]
        # One video shows what a group does.
        arguments += [] if first else ["--evaluation.no-video"]
    log = folder / f"seed-{seed}.log"
    return Job(name=f"seed {seed}", arguments=tuple(arguments), log=log)


def _progress(config: RunConfig, folder: Path, seeds: Sequence[int]) -> tuple[str, float]:
    steps = [last_step(seed_folder(folder, seed) / "metrics.jsonl") for seed in seeds]
    each = ", ".join(f"seed {s}: {step:,}" for s, step in zip(seeds, steps, strict=True))
    total = config.training.steps
    return f"{each} of {total:,} updates", sum(steps) / (total * len(seeds))
