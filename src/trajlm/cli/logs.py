"""Logs on stderr: one line a record, as it is said."""

from __future__ import annotations

import logging
import sys


def to_stderr(*, verbose: bool = False) -> None:
    """Show what trajlm logs; `verbose` shows the details too. A second call changes the level."""
    logger = logging.getLogger("trajlm")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    for handler in logger.handlers:
        if isinstance(handler, _Stderr):
            return
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever stderr is now, which a test or a notebook may have replaced."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)
