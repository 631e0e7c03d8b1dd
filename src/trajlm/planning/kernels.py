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
import shlex
import shutil
import stat
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
PANEL = 64
"""Columns of a panel of weights, as kernels.c has them."""
NAMES = {torch.float32: "float", torch.float64: "double"}


def compiler() -> list[str] | None:
    """`$CC`, else the first C compiler on the PATH, with its flags; None where there is none."""
    own = shlex.split(os.environ.get("CC", ""))
    for words in [own] if own else [[name] for name in COMPILERS]:
        program = shutil.which(words[0])
        if program is not None:
            return [program, *words[1:]]
    return None


@functools.cache
def library(*, width: int, heads: int, hidden: int, dtype: torch.dtype) -> ctypes.CDLL:
    """`run` of kernels.c for these sizes; compiled where the cache has none.

    Raises `UsageError` without a compiler or where it fails, `StorageError` where the cache cannot be
    written.
    """
    sizes = {"WIDTH": width, "HEADS": heads, "HIDDEN": hidden}
    kinds = {"REAL": NAMES[dtype], "SINGLE": int(dtype == torch.float32)}
    found = _loaded([f"-D{name}={value}" for name, value in (sizes | kinds).items()])
    pointer: Any = ctypes.c_void_p
    integer: Any = ctypes.c_int32
    found.scratch_of.restype = ctypes.c_int64
    found.scratch_of.argtypes = [integer, integer, integer]
    found.run.restype = None
    found.run.argtypes = [
        *(pointer, pointer, pointer, pointer, *([integer] * 5)),
        *(pointer, ctypes.c_double, pointer, ctypes.c_int64, pointer, integer),
    ]
    return found


def _loaded(sizes: list[str]) -> ctypes.CDLL:
    program = compiler()
    if program is None:
        own = os.environ.get("CC")
        told = (
            f"$CC is {own}, which is not there"
            if own
            else f"none of {', '.join(COMPILERS)} is there"
        )
        raise UsageError(
            f"kernels: compiled ones need a C compiler; {told}; install one, {WAY_OUT}"
        )
    command = [*program, *FLAGS, *sizes]
    file = cache_folder() / "kernels" / f"{_key(command)}.so"
    if not file.is_file():
        _compile(command, file)
    _refuse_what_others_may_write(file)
    try:
        return ctypes.CDLL(str(file))
    except OSError as error:
        raise UsageError(
            f"kernels: {file} cannot be loaded ({error}); delete it, {WAY_OUT}"
        ) from None


def _refuse_what_others_may_write(file: Path) -> None:
    """What is loaded is run: nobody else may have put it there."""
    for path in (file.parent, file):
        state = path.stat()
        if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"kernels: {path} is another's, or may be written by others; set TRAJLM_CACHE to a folder "
                f"of your own, {WAY_OUT}"
            )


def _key(command: list[str]) -> str:
    """By what was compiled, how and on which processor."""
    processor = platform.processor()
    known = Path("/proc/cpuinfo")
    if known.is_file():
        lines = known.read_text().splitlines()
        processor += "".join(dict.fromkeys(x for x in lines if x.startswith(("flags", "Features"))))
    system = [platform.machine(), *platform.libc_ver(), processor]
    told = "\n".join([*command, *system, SOURCE.read_text()])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _compile(command: list[str], file: Path) -> None:
    """Into a file of its own first, so that two processes may do so at once."""
    with storage_errors(file.parent):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = Path(folder) / file.name
            ending = [str(SOURCE), "-lm", "-o", str(made)]
            for further in ATTEMPTS:
                told = _fault([*command, *further, *ending])
                if told is None:
                    made.chmod(0o700)  # whatever the umask
                    made.replace(file)
                    return
            raise UsageError(f"kernels: {command[0]} failed: {told}; {WAY_OUT}")


def _fault(command: list[str]) -> str | None:
    """What a compiler said where it failed: its first error, else its last line."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        return str(error.strerror)
    if not done.returncode:
        return None
    lines = done.stderr.strip().splitlines() or ["no message"]
    return next((line for line in lines if "error" in line), lines[-1])
