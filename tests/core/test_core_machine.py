"""What a process may use: its cache, and memory that it keeps."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from trajlm.core.machine import available_cores, cache_folder, keep_memory

FAULTS = """
import resource, sys
import numpy as np
from trajlm.core.machine import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def work():
    arrays = [np.ones(2_000_000, np.float32) for _ in range(20)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_there_is_a_core_and_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert available_cores() >= 1
    monkeypatch.setenv("TRAJLM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TRAJLM_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "trajlm"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    faults = {
        kind: int(subprocess.check_output([sys.executable, "-c", FAULTS, kind]))
        for kind in ("keep", "default")
    }
    assert faults["keep"] * 20 < faults["default"]


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr("ctypes.CDLL", lambda name: called.append(name) or object())
    keep_memory.__wrapped__()
    assert called == [None]
