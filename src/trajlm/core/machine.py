"""What this process may use of its machine."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores this process may use (a container's limit counts, not the machine's total)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
