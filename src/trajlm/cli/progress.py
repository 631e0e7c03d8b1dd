"""Progress on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0


class Reporter:
    """Called with what is being done and the share done, 0 to 1.

    The bar is there from the first call to the one with share 1: training draws its own.
    """

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def __call__(self, what: str, share: float) -> None:
        if not sys.stderr.isatty():
            self._line(what, share)
        elif share >= 1.0:
            self.close()
        else:
            bar = self._bar or self._open(what)
            bar.update(bar.tasks[0].id, description=what, completed=share)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open(self, what: str) -> Progress:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.add_task(what, total=1.0)
        self._bar.start()
        return self._bar

    def _line(self, what: str, share: float) -> None:
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"{what}: {share:.0%}", file=sys.stderr, flush=True)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """A reporter whose bar is gone when the block ends."""
    reporter = Reporter()
    try:
        yield reporter
    finally:
        reporter.close()
