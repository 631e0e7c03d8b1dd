"""Commands of `trajlm` side by side, each a process of its own with a log.

A terminal's Ctrl-C reaches this process alone, which passes it on and waits until all have saved.
A process whose parent is killed gets SIGTERM, where the system (Linux) can promise that.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trajlm.core.errors import Interrupted, TrajlmError
from trajlm.training.signals import StopSignals

POLL_SECONDS = 0.3
GRACE_SECONDS = 60.0
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)

logger = logging.getLogger(__name__)


class CommandFailed(TrajlmError):
    """A command's process ended with an error, whose exit code this has."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class Job:
    """`name` is for people; `arguments` follow `trajlm`; stdout and stderr are appended to `log`."""

    name: str
    arguments: tuple[str, ...]
    log: Path

    def failure(self, code: int) -> CommandFailed:
        """What the last line of the log says of a process that ended with `code`."""
        last = (self.log.read_text(errors="replace").splitlines() or [""])[-1]
        return CommandFailed(
            f"{self.name} ended with {code}: {last.removeprefix('trajlm: ')}",
            exit_code=code if code > 0 else 128 - code,
        )


def run_side_by_side(
    jobs: Sequence[Job],
    *,
    at_once: int,
    threads: int,
    ended: Callable[[Job, int], bool],
    waiting: Callable[[], None],
    way_on: str,
) -> None:
    """Run every job, `at_once` at a time, with `threads` for each one's numerical libraries.

    `ended(job, exit status)` says whether further jobs may start; `waiting()` is called a few times
    a second. Raises `Interrupted`, with `way_on` for the user, once a signal has been passed on and
    the processes have saved and ended.
    """
    left, going_on = list(jobs), True
    with StopSignals() as stop, _processes() as running:
        while running or (left and going_on):
            while left and going_on and len(running) < at_once and not stop.received:
                job = left.pop(0)
                running.append((job, _start(job, threads=threads)))
            if stop.received:
                _pass_on(running, stop.received)
                raise Interrupted(f"interrupted; {way_on}", signal_number=stop.received)
            time.sleep(POLL_SECONDS)
            for job, process in [each for each in running if each[1].poll() is not None]:
                running.remove((job, process))
                going_on = ended(job, process.returncode) and going_on
            waiting()


def _start(job: Job, *, threads: int) -> subprocess.Popen[bytes]:
    source = Path(__file__).resolve().parents[2]
    paths = [str(source), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment["OMP_NUM_THREADS"] = str(threads)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "trajlm.cli.main", *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
            preexec_fn=_end_with_parent(),
        )


def _end_with_parent() -> Callable[[], object] | None:
    """What a new process calls so that SIGTERM reaches it when this one is killed; Linux alone."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return partial(prctl, PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)


@contextmanager
def _processes() -> Iterator[list[tuple[Job, subprocess.Popen[bytes]]]]:
    """A list of processes, none of which outlives the block."""
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    try:
        yield running
    finally:
        for _, process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


def _pass_on(
    running: Sequence[tuple[Job, subprocess.Popen[bytes]]], signal_number: signal.Signals
) -> None:
    for _, process in running:
        process.send_signal(signal_number)
    deadline = time.monotonic() + GRACE_SECONDS
    for job, process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.warning("%s did not save within %.0f s", job.name, GRACE_SECONDS)


def last_step(path: Path) -> int:
    """The step of the last whole line of a metrics.jsonl; 0 before there is one."""
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
