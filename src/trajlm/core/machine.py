"""What this process may use of its machine."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "TRAJLM_CACHE"


def available_cores() -> int:
    """Cores this process may use (a container's limit counts, not the machine's total)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_folder() -> Path:
    """`$TRAJLM_CACHE`, else `~/.cache/trajlm`: what can be made again."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "trajlm")
