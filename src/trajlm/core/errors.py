"""Typed errors: each has one line for the user and the exit code the command line ends with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrajlmError(Exception):
    """Base of every error a user can meet. `exit_code` is the process's exit status."""

    exit_code = 1


class UsageError(TrajlmError, ValueError):
    """A flag, recipe, configuration key or value that does not exist or does not fit."""

    exit_code = 2


class DataError(TrajlmError, ValueError):
    """A dataset that is missing, broken, hostile or does not fit what was asked of it."""

    exit_code = 3


class CheckpointError(TrajlmError, ValueError):
    """A checkpoint or artefact that is missing, damaged or of another format."""

    exit_code = 4


class EnvironmentFault(TrajlmError, RuntimeError):
    """An environment that cannot be made, raises, or does not fit the model."""

    exit_code = 5


class DivergedError(TrajlmError, RuntimeError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 6


class StorageError(TrajlmError, OSError):
    """The disk is full, or a folder cannot be written or exists already."""

    exit_code = 7


class Interrupted(TrajlmError):
    """SIGINT or SIGTERM arrived; the step was finished and the state saved."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def suggestion(name: str, known: Iterable[str]) -> str:
    """A clause naming the nearest known name, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
