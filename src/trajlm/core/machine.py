"""What this process may use of its machine."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

CACHE_VARIABLE = "TRAJLM_CACHE"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""


def available_cores() -> int:
    """Cores this process may use (a container's limit counts, not the machine's total)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_folder() -> Path:
    """`$TRAJLM_CACHE`, else `~/.cache/trajlm`: what can be made again."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "trajlm")


@functools.cache
def keep_memory() -> None:
    """Let this process keep what it frees, where the C library is glibc; elsewhere nothing happens.

    By default it hands large arrays back to the system, and each update of a training faults in their
    pages anew: up to a third of its time. The peak is the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(MMAP_THRESHOLD, 32 * 2**20)  # the largest it takes
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
