"""Tasks spread over processes. What a task gives does not depend on who runs it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from trajlm.collect.worker import RESULT, Runner, Task, unpack
from trajlm.core.errors import EnvironmentFault
from trajlm.core.trajectory import Trajectory

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Pool(Protocol):
    """Takes tasks now, gives their episodes later."""

    def submit(self, task: Task) -> Future[list[Trajectory]]: ...

    def close(self) -> None: ...


class LocalPool:
    """Runs each task in this process, when its result is asked for."""

    def __init__(self) -> None:
        self._runner = Runner()

    def submit(self, task: Task) -> Future[list[Trajectory]]:
        return _Deferred(self._runner, task)

    def close(self) -> None:
        self._runner.close()


class _Deferred(Future[list[Trajectory]]):
    """A future that does its work in `result`."""

    def __init__(self, runner: Runner, task: Task) -> None:
        super().__init__()
        self._runner, self._task = runner, task

    def result(self, timeout: float | None = None) -> list[Trajectory]:
        return self._runner.run(self._task)


class WorkerPool:
    """Programs `trajlm.collect.worker`, one thread of this process waiting on each."""

    def __init__(self, processes: int) -> None:
        self._workers = [_start() for _ in range(processes)]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(processes)

    def submit(self, task: Task) -> Future[list[Trajectory]]:
        return self._threads.submit(self._run, task)

    def close(self) -> None:
        """End the workers at once, whatever they are doing; they have written nothing."""
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.communicate()

    def _run(self, task: Task) -> list[Trajectory]:
        worker = self._idle.get()
        try:
            kind, payload = _ask(worker, task)
        finally:
            self._idle.put(worker)
        if kind != RESULT:
            raise EnvironmentFault(payload.decode(errors="replace"))
        return unpack(payload)


def _start() -> subprocess.Popen[bytes]:
    package_root = str(Path(__file__).parents[2])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "trajlm.collect.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
        process_group=0,  # Ctrl-C reaches the parent alone, which ends its workers
    )


def _ask(worker: subprocess.Popen[bytes], task: Task) -> tuple[bytes, bytes]:
    tasks, answers = cast(BinaryIO, worker.stdin), cast(BinaryIO, worker.stdout)
    try:
        tasks.write(json.dumps(asdict(task)).encode() + b"\n")
        tasks.flush()
    except OSError:
        pass  # the worker is gone: reading says so
    header = answers.read(9)
    payload = answers.read(int.from_bytes(header[1:], "big"))
    if len(header) < 9 or len(payload) < int.from_bytes(header[1:], "big"):
        raise EnvironmentFault(
            f"a collecting process ended (exit status {worker.wait()}); use processes=1 to see why"
        )
    return header[:1], payload


def open_pool(processes: int) -> Pool:
    return LocalPool() if processes == 1 else WorkerPool(processes)


def in_blocks(
    first: int, count: int, *, body: str, behaviour: str, seed: int, slots: int
) -> Sequence[Task]:
    """Tasks for episodes `first, ..., first + count - 1`, cut where blocks of `slots` end."""
    tasks, stop = [], first + count
    while first < stop:
        size = min(stop, (first // slots + 1) * slots) - first
        tasks.append(Task(body=body, behaviour=behaviour, seed=seed, first=first, count=size))
        first += size
    return tasks
