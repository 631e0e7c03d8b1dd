"""A group: one configuration trained with several seeds, and one table over them.

Each seed is a process of its own with its share of the cores: on two cores two processes of one
thread make more updates together than one after the other with two threads. A group that was
interrupted is continued by running it again with `resuming`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trajlm.core.errors import CheckpointError, Interrupted, TrajlmError
from trajlm.core.formats import GROUP_FORMAT
from trajlm.evaluation.group import write_group
from trajlm.runs.config import RunConfig
from trajlm.runs.facts import available_cores
from trajlm.runs.folder import (
    RESULTS_FILE,
    RUN_FILE,
    create_folder,
    read_json,
    read_run,
    refuse_existing,
    write_json,
)
from trajlm.runs.offline import examine, load_store
from trajlm.runs.scoring import Progress, evaluate_run, evaluation_folder
from trajlm.training.signals import StopSignals

GROUP_FILE = "group.json"
POLL_SECONDS = 0.3
GRACE_SECONDS = 60.0

logger = logging.getLogger(__name__)


class SeedFailed(TrajlmError):
    """A seed's process ended with an error, whose exit code this has."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Worker:
    """A seed's process and where it writes."""

    seed: int
    folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)


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

    Raises `SeedFailed` with a failed seed's exit code after the others have ended, and
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
    device: str = "cpu",
    progress: Progress | None = None,
) -> Mapping[str, Any]:
    """Evaluate every seed's run again and write the group's table."""
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
    waiting = list(seeds)
    failures: list[Worker] = []
    with StopSignals() as stop, _workers() as running:
        while waiting or running:
            while waiting and len(running) < at_once and not failures and not stop.received:
                seed = waiting.pop(0)
                running.append(_start(folder, seed, threads=threads, first=seed == seeds[0]))
            if stop.received:
                _pass_on(running, stop.received)
                raise Interrupted(
                    f"interrupted; continue with trajlm train --resume {folder}",
                    signal_number=stop.received,
                )
            time.sleep(POLL_SECONDS)
            for worker in [w for w in running if w.process.poll() is not None]:
                running.remove(worker)
                if worker.process.returncode:
                    failures.append(worker)
            if failures and not running:
                break
            if progress is not None:
                progress(*_progress(config, folder, seeds))
    if failures:
        worker = min(failures, key=lambda worker: worker.seed)
        code = worker.process.returncode
        last = (_log(folder, worker.seed).read_text(errors="replace").splitlines() or [""])[-1]
        raise SeedFailed(
            f"seed {worker.seed} ended with {code}: {last.removeprefix('trajlm: ')}",
            exit_code=code if code > 0 else 128 - code,
        )


def _start(folder: Path, seed: int, *, threads: int, first: bool) -> Worker:
    """A process of its own session: a terminal's Ctrl-C reaches the parent, which passes it on."""
    run = seed_folder(folder, seed)
    command = [sys.executable, "-m", "trajlm.cli.main", "train"]
    if (run / RUN_FILE).is_file():
        command += ["--resume", str(run)]
    else:
        command += [str(folder / RUN_FILE), "--output", str(folder), "--name", run.name]
        command += ["--seed", str(seed), "--threads", str(threads)]
        # One video shows what a group does.
        command += [] if first else ["--evaluation.no-video"]
    source = Path(__file__).resolve().parents[2]
    paths = [str(source), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with _log(folder, seed).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
    return Worker(seed=seed, folder=run, process=process)


@contextmanager
def _workers() -> Iterator[list[Worker]]:
    """A list of processes, none of which outlives the block."""
    running: list[Worker] = []
    try:
        yield running
    finally:
        for worker in running:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()


def _pass_on(running: Sequence[Worker], signal_number: int) -> None:
    for worker in running:
        worker.process.send_signal(signal_number)
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in running:
        try:
            worker.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.warning("seed %d did not save within %.0f s", worker.seed, GRACE_SECONDS)


def _progress(config: RunConfig, folder: Path, seeds: Sequence[int]) -> tuple[str, float]:
    steps = [_last_step(seed_folder(folder, seed) / "metrics.jsonl") for seed in seeds]
    each = ", ".join(f"seed {s}: {step:,}" for s, step in zip(seeds, steps, strict=True))
    total = config.training.steps
    return f"{each} of {total:,} updates", sum(steps) / (total * len(seeds))


def _last_step(path: Path) -> int:
    """The step of the last whole line of metrics.jsonl; 0 before there is one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


def _log(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.log"
