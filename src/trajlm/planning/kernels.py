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
from typing import Any

import torch

from trajlm.core.errors import UsageError
from trajlm.core.files import storage_errors
from trajlm.core.machine import cache_folder

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    *("-std=gnu11", "-O3", "-fPIC", "-shared"),
    # Sums may be taken apart into vectors. Not -ffast-math: NaN must stay NaN.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
NATIVE, THREADS = "-march=native", "-fopenmp"
ATTEMPTS = ((NATIVE, THREADS), (NATIVE,), (THREADS,), ())
"""Some compilers know neither; what they make is slower."""
WAY_OUT = "or take --policy.kernels torch"
PANEL, ROUNDING = 64, 16
"""As kernels.c has them: columns of a panel of weights; what scores of a row are rounded up to."""


def compiler() -> str | None:
    """`$CC`, else the first C compiler on the PATH; None where there is none."""
    own = os.environ.get("CC")
    return next(filter(None, map(shutil.which, [own] if own else COMPILERS)), None)


@functools.cache
def library(*, width: int, heads: int, hidden: int, dtype: torch.dtype) -> ctypes.CDLL:
    """`run` of kernels.c for these sizes; compiled where the cache has none.

    Raises `UsageError` without a compiler or where it fails, `StorageError` where the cache cannot be
    written.
    """
    single = dtype == torch.float32
    sizes = {"WIDTH": width, "HEADS": heads, "HIDDEN": hidden, "SINGLE": int(single)}
    kind = f"-DREAL={'float' if single else 'double'}"
    found = _loaded([kind, *(f"-D{name}={value}" for name, value in sizes.items())])
    found.run.restype = None
    pointer: Any = ctypes.c_void_p
    integer: Any = ctypes.c_int32
    found.run.argtypes = [
        *(pointer, pointer, pointer, pointer, *([integer] * 5)),
        *(pointer, ctypes.c_double, pointer, ctypes.c_int64, pointer, integer),
    ]
    return found


def _loaded(sizes: list[str]) -> ctypes.CDLL:
    program = compiler()
    if program is None:
        raise UsageError(
            f"kernels: compiled ones need a C compiler ({', '.join(COMPILERS)}, or $CC), {WAY_OUT}"
        )
    command = [program, *FLAGS, *sizes]
    file = cache_folder() / "kernels" / f"{_key(command)}.so"
    if not file.is_file():
        _compile(command, file)
    try:
        return ctypes.CDLL(str(file))
    except OSError:
        raise UsageError(f"kernels: {file} cannot be loaded; delete it, {WAY_OUT}") from None


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
    with storage_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = Path(folder) / file.name
            ending = [str(SOURCE), "-lm", "-o", str(made)]
            for further in ATTEMPTS:
                told = _fault([*command, *further, *ending])
                if told is None:
                    made.replace(file)
                    return
            raise UsageError(f"kernels: {command[0]} failed: {told}; {WAY_OUT}")


def _fault(command: list[str]) -> str | None:
    """What a compiler said at last where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else None
