"""Files that are written whole or not at all, in one rename, wherever a result is kept."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trajlm.core.errors import StorageError

NUMBERS = re.compile(r"\[\n\s+([-+\d.eE,\s]+?)\n\s+\]")
"""A list of numbers as `json.dumps` indents it: no string has a line's end in it."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a `StorageError` that names the path."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        where = error.filename or path
        raise StorageError(
            f"{where}: cannot be written ({error.strerror or error}); free space, or choose "
            "another folder"
        ) from None


def write_bytes(path: Path, data: bytes) -> None:
    """A new file, synced to the disk; its mode honours the umask."""
    with storage_errors(path), path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one rename; what was there stands until then. Raises `StorageError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        try:
            write_bytes(temporary, data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    """Delete a file, link or folder, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def json_bytes(value: Any) -> bytes:
    """Indented, with lists of numbers on one line. Raises `ValueError` for numbers JSON has not."""
    text = json.dumps(value, indent=2, allow_nan=False)
    return (NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n").encode()
