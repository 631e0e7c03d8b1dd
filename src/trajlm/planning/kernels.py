"""Code of `kernels.c`, compiled at run time by the machine's own C compiler and kept in the cache.

Sizes are constants of the compiled code, so there is a library for each width. Only the source shipped
with the package is ever compiled.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from trajlm.core.errors import UsageError
from trajlm.data.cache import cache_folder

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fPIC", "-shared"),
    # Sums may be taken apart into vectors. Not -ffast-math: NaN must stay NaN.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
WAY_OUT = "or take --policy.kernels torch"
PANEL = 64
"""Columns of a panel of weights, as kernels.c has them."""


def refusal() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    if _compiler() is None:
        return f"compiled ones need a C compiler ({', '.join(COMPILERS)}), as CC or on the PATH"
    return None


@functools.cache
def library(*, width: int, heads: int, hidden: int, dtype: torch.dtype) -> ctypes.CDLL:
    """`run` of kernels.c for these sizes; compiled where the cache has none.

    Raises `UsageError` without a compiler, or where it fails.
    """
    single = dtype == torch.float32
    sizes = {"WIDTH": width, "HEADS": heads, "HIDDEN": hidden, "SINGLE": int(single)}
    sizes["REAL"] = "float" if single else "double"
    compiler = _compiler()
    if compiler is None:
        raise UsageError(f"policy.kernels: {refusal()}, {WAY_OUT}")
    command = [compiler, *FLAGS, *(f"-D{name}={value}" for name, value in sizes.items())]
    file = cache_folder() / "kernels" / f"{_key(command)}.so"
    if not file.is_file():
        _compile(command, file)
    found = ctypes.CDLL(str(file))
    found.run.restype = None
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    found.run.argtypes = [
        *(pointer, pointer, pointer, pointer, integer, integer, integer, integer),
        *(pointer, ctypes.c_double, pointer, ctypes.c_int64, pointer, integer),
    ]
    return found


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, [os.environ.get("CC") or "cc", *COMPILERS])), None)


def _key(command: list[str]) -> str:
    """By what was compiled, how and on which processor."""
    processor = platform.processor()
    known = Path("/proc/cpuinfo")
    if known.is_file():
        lines = known.read_text().splitlines()
        processor += "".join(dict.fromkeys(x for x in lines if x.startswith(("flags", "Features"))))
    told = "\n".join([*command, platform.machine(), processor, SOURCE.read_text()])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _compile(command: list[str], file: Path) -> None:
    """Into a file of its own first, so that two processes may do so at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        ending = [str(SOURCE), "-lm", "-o", str(made)]
        done = _run([*command, "-fopenmp", *ending])
        if done.returncode:  # without threads, where the compiler has none
            done = _run([*command, *ending])
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"policy.kernels: {command[0]} failed: {told}; {WAY_OUT}")
        os.replace(made, file)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
