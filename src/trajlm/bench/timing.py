"""Timing two ways of doing one thing, in turn, so that a drifting machine hits both alike."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

Maker = Callable[[], Callable[[], object]]
"""Makes the work to be timed. It is sent to another process: a module's function, or a `partial`."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds of each counted round of both sides."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster ours was, round by round."""
        return tuple(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(ours: Maker, theirs: Maker, *, rounds: int) -> Comparison:
    """Two warm-ups of each, then `rounds` pairs in turn.

    Each side has a process of its own: what ours sets up there, as the trainer does, is not theirs.
    """
    with _Side(ours) as own, _Side(theirs) as other:
        pairs = [(own.seconds(), other.seconds()) for _ in range(rounds)]
    return Comparison(ours=tuple(a for a, _ in pairs), theirs=tuple(b for _, b in pairs))


class _Side(AbstractContextManager["_Side"]):
    """A process that holds one side's work, and works when it is asked to."""

    def __init__(self, make: Maker) -> None:
        start = multiprocessing.get_context("spawn")
        self.connection, there = start.Pipe()
        self.process = start.Process(
            target=_serve, args=(there, make, torch.get_num_threads()), daemon=True
        )
        self.process.start()
        there.close()
        self.seconds(), self.seconds()

    def seconds(self) -> float:
        """Of one call. Raises `RuntimeError` where the process ended, which has told why."""
        try:
            self.connection.send(None)
            return float(self.connection.recv())
        except (EOFError, ConnectionError):
            self.process.join()
            raise RuntimeError(
                f"one side of the comparison ended with {self.process.exitcode}"
            ) from None

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.process.join()


def _serve(connection: Connection, make: Maker, threads: int) -> None:
    torch.set_num_threads(threads)
    work = make()
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(seconds(work))
