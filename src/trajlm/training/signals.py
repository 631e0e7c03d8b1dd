"""Stopping at a good moment: SIGINT and SIGTERM are remembered until the update is finished."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
logger = logging.getLogger(__name__)


class StopNow(KeyboardInterrupt):
    """Raised inside `interruptible()` by the first signal. No `except Exception` swallows it."""


class StopSignals:
    """While entered, the first signal is kept in `received`; a second one ends the process.

    The handlers of before are restored on leaving. Outside the main thread, where none can be
    set, it does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._interruptible = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = signal.Signals(number)
        logger.warning(
            "%s: finishing this step and saving; once more to leave at once", self.received.name
        )
        if self._interruptible:
            raise StopNow

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Long work that may be cut short: the first signal ends the block, without an error."""
        self._interruptible = True
        try:
            yield
        except StopNow:
            pass
        finally:
            self._interruptible = False
