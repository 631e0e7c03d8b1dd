"""The run's folder: what lies in it besides checkpoints, metrics and evaluations.

run.yaml (the resolved configuration), meta.json (versions, machine, seed, precision), dataset.json
(the dataset's summary), train.log. One process at a time writes to a folder.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trajlm.core.errors import CheckpointError, StorageError
from trajlm.core.files import json_bytes, replace_file
from trajlm.runs.config import RunConfig, resolve

RUN_FILE = "run.yaml"
META_FILE = "meta.json"
DATASET_FILE = "dataset.json"
RESULTS_FILE = "results.json"
MAX_JSON_BYTES = 50_000_000

logger = logging.getLogger("trajlm.runs")


def refuse_existing(folder: Path) -> None:
    """Raises `StorageError` where `folder` is there, with the ways out."""
    if folder.exists() or folder.is_symlink():
        raise StorageError(
            f"{folder} exists; continue it with --resume {folder}, or choose another --name"
        )
    parent = next(p for p in folder.parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(f"{folder}: {parent} is no folder that can be written to")


def read_run(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`. Raises `CheckpointError` where there is none."""
    if not (folder / RUN_FILE).is_file():
        what = "holds no run.yaml" if folder.is_dir() else "does not exist"
        raise CheckpointError(f"{folder}: no run ({what}); name a folder that trajlm train made")
    return resolve(str(folder / RUN_FILE))


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Appends everything trajlm logs to `path` meanwhile."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("trajlm")
    before = root.level
    root.addHandler(handler)
    root.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()


def make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


def create_folder(folder: Path, files: Mapping[str, str]) -> None:
    """A new folder with these text files in it, whole or not at all."""
    refuse_existing(folder)
    make_folder(folder.parent)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir()
        for name, text in files.items():
            (beside / name).write_text(text, encoding="utf-8")
        beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise StorageError(f"{folder}: cannot be made: {error.strerror}") from None


def write_json(path: Path, value: Any) -> None:
    replace_file(path, json_bytes(finite(value)))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping. Raises `CheckpointError` where it is missing or broken."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_JSON_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: not JSON; was the run copied whole?") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a mapping at the top")
    return value


def finite(value: Any) -> Any:
    """`value` with NaN and infinities as null, which JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
