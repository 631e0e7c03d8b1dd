"""Datasets once read, kept as memory-mapped columns with a SHA-256 manifest.

One folder a source under `$TRAJLM_CACHE` (or `~/.cache/trajlm`), `datasets/KEY`, with an `.npy`
file a column and `manifest.json`. An entry is current while path, size and modification time of
the source are what the manifest says. Files up to 256 MB are verified whole when opened, larger
ones chunk by chunk when first read. Entries are written beside their place and renamed: processes
that load at once each find a whole entry. A damaged entry is built again, never trusted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.machine import cache_folder
from trajlm.core.spec import space_from_json, space_to_json
from trajlm.data.store import Segment, TrajectoryStore

FORMAT = "trajlm.cache/1"
WHOLE_FILE_BYTES = 256 * 2**20
CHUNK_BYTES = 16 * 2**20
STALE_AFTER_S = 3600
EPISODE_FACTS = ("lengths", "terminated", "truncated", "unfinished", "seeds")

logger = logging.getLogger(__name__)


def file_hash(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of the files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def through_cache(
    files: Sequence[Path],
    *,
    options: Mapping[str, Any],
    build: Callable[[], TrajectoryStore],
) -> TrajectoryStore:
    """The store that `build` makes of `files`, from the cache where it is there and whole.

    `options`: what else the result depends on. Where the cache cannot be written, the built store
    is returned and the reason logged.
    """
    facts = source_facts(files)
    entry = cache_folder() / "datasets" / _key(facts, options)
    if entry.is_dir():
        try:
            manifest = read_manifest(entry)
            if manifest["source"] == facts:
                return open_entry(entry, manifest)
            logger.info("%s has changed since it was cached; it is read again", files[0])
        except (DataError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning(
                "%s: the cached copy is damaged (%s); it is built again", files[0], error
            )
    store = build()
    try:
        write_entry(entry, store, source=facts)
        # Mapped from here on: processes that load one dataset share its memory.
        return open_entry(entry, read_manifest(entry), verify=False)
    except OSError as error:
        logger.warning("the cache %s cannot be written (%s); going on without", entry, error)
    except (DataError, ValueError, KeyError, TypeError) as error:
        logger.warning(
            "the cache %s was damaged while written (%s); going on without", entry, error
        )
    return store


def source_facts(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Resolved path, size and modification time of each file."""
    found = []
    for path in files:
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        found.append(
            {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        )
    return found


def _key(facts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    named = {"format": FORMAT, "paths": [fact["path"] for fact in facts], "options": options}
    return _digest_json(named)[:32]


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ---- writing ------------------------------------------------------------------------------------


def write_entry(entry: Path, store: TrajectoryStore, *, source: Any) -> None:
    """Writes a one-segment store; the entry appears whole or not at all. Raises `OSError`."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    _sweep(entry)
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        segment = store.segments[0]
        columns = {}
        for number, (name, column) in enumerate(sorted(segment.columns.items())):
            columns[name] = _write_array(temporary / f"column-{number:02d}.npy", column)
        episodes = {
            fact: _write_array(temporary / f"{fact}.npy", getattr(segment, fact))
            for fact in EPISODE_FACTS
        }
        body = {
            "format": FORMAT,
            "source": source,
            "columns": columns,
            "episodes": episodes,
            "has_last_observation": segment.has_last_observation,
            "observation_space": space_to_json(store.observation_space),
            "action_space": space_to_json(store.action_space),
            "env_id": store.env_id,
            "name": store.name,
            "content_hash": store.content_hash,
            "metadata": dict(store.metadata),
        }
        manifest = {"sha256": _digest_json(body), "body": body}
        (temporary / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        _replace_folder(temporary, entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(entry: Path) -> None:
    """Removes what killed processes left of this entry more than an hour ago."""
    for leftover in entry.parent.glob(f".{entry.name}.*"):
        try:
            if time.time() - leftover.stat().st_mtime > STALE_AFTER_S:
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:
            continue


def _write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    array = np.ascontiguousarray(array)
    np.save(path, array, allow_pickle=False)
    return {
        "file": path.name,
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "chunk_rows": _chunk_rows(array),
        "sha256": _chunk_hashes(array),
    }


def _chunk_rows(array: np.ndarray) -> int:
    """Rows that one hash covers: about 16 MB of them."""
    return max(1, CHUNK_BYTES // max(1, array.nbytes // max(len(array), 1)))


def _chunk_hashes(array: np.ndarray) -> list[str]:
    """A hash for each chunk of rows. Threads: hashing lets go of the interpreter."""
    step = _chunk_rows(array)
    parts = [array[start : start + step] for start in range(0, len(array), step)]
    if len(parts) < 2:
        return [_hash_rows(part) for part in parts]
    with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(_hash_rows, parts))


def _hash_rows(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.reshape(-1).view(np.uint8).data).hexdigest() if rows.size else ""


def _replace_folder(temporary: Path, entry: Path) -> None:
    """Renames into place. An older entry steps aside; those who mapped it keep their memory."""
    if entry.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.old.", dir=entry.parent))
        try:
            entry.rename(aside / "entry")
        except FileNotFoundError:
            pass  # another process replaced it just now
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    try:
        temporary.rename(entry)
    except OSError:
        if not entry.is_dir():
            raise
        # Another process was first with the same entry: its copy serves.


# ---- reading ------------------------------------------------------------------------------------


def read_manifest(entry: Path) -> dict[str, Any]:
    """The manifest's body. Raises `DataError` where it is not what its own hash says."""
    manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
    body = manifest["body"]
    if _digest_json(body) != manifest["sha256"]:
        raise DataError(f"{entry / 'manifest.json'} does not match its hash")
    if body["format"] != FORMAT:
        raise DataError(f"{entry} has the format {body['format']!r}")
    return cast(dict[str, Any], body)


def open_entry(entry: Path, body: Mapping[str, Any], *, verify: bool = True) -> TrajectoryStore:
    """The entry as a memory-mapped store. Raises `DataError` for a file that was altered."""
    opened = {name: _open_array(entry, facts, verify) for name, facts in body["columns"].items()}
    episodes = {name: _open_array(entry, facts, verify) for name, facts in body["episodes"].items()}
    segment = Segment(
        columns=opened,
        has_last_observation=body["has_last_observation"],
        **{name: np.array(array) for name, array in episodes.items()},
    )
    return TrajectoryStore.from_segment(
        segment,
        observation_space=space_from_json(body["observation_space"]),
        action_space=space_from_json(body["action_space"]),
        env_id=body["env_id"],
        name=body["name"],
        content_hash=body["content_hash"],
        metadata=body["metadata"],
    )


def _open_array(entry: Path, facts: Mapping[str, Any], verify: bool) -> np.ndarray:
    path = entry / facts["file"]
    if path.parent != entry:
        raise DataError(f"{path} is outside of its entry")
    size = int(np.prod(facts["shape"], dtype=np.int64)) * np.dtype(facts["dtype"]).itemsize
    array = np.load(path, mmap_mode="r" if size else None, allow_pickle=False)
    if array.dtype.str != facts["dtype"] or list(array.shape) != facts["shape"]:
        raise DataError(f"{path} holds {array.dtype} {array.shape}, not what the manifest says")
    if array.nbytes > WHOLE_FILE_BYTES:
        checked = CheckedColumn(array, path=path, chunk_rows=facts["chunk_rows"])
        checked.expect(facts["sha256"])
        return cast(np.ndarray, checked)
    if verify and _chunk_hashes(array) != facts["sha256"]:
        raise DataError(f"{path} does not match its hash")
    return np.asarray(array)


class CheckedColumn:
    """A large memory-mapped column whose chunks are compared with their hashes when first read.

    It reads like an array: `column[rows]`, `len`, `shape`, `dtype`, `np.asarray(column)`.
    """

    def __init__(self, array: np.ndarray, *, path: Path, chunk_rows: int) -> None:
        self._array = array
        self._path = path
        self._chunk_rows = chunk_rows
        self._hashes: Sequence[str] = ()
        self._seen = np.zeros(-(-len(array) // chunk_rows), bool)

    def expect(self, hashes: Sequence[str]) -> None:
        """The manifest's hashes, one a chunk."""
        if len(hashes) != len(self._seen):
            raise DataError(f"{self._path}: the manifest has {len(hashes)} hashes")
        self._hashes = hashes

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def nbytes(self) -> int:
        return self._array.nbytes

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: Any) -> np.ndarray:
        if not self._seen.all():
            self._verify(key[0] if isinstance(key, tuple) else key)
        return np.asarray(self._array[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        if dtype is not None and np.dtype(dtype) != whole.dtype:
            return whole.astype(dtype)
        return whole.copy() if copy else whole

    def _verify(self, rows: Any) -> None:
        """Hashes the unseen chunks that hold `rows`: an int, a slice, indices or a mask."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            low, high = (start, stop) if step > 0 else (stop + 1, start + 1)
            chunks = np.arange(low // self._chunk_rows, -(-max(high, low) // self._chunk_rows))
        elif rows is Ellipsis or rows is None:
            chunks = np.arange(len(self._seen))
        else:
            index = np.asarray(rows)
            index = np.flatnonzero(index) if index.dtype == bool else index % len(self)
            chunks = np.unique(index // self._chunk_rows)
        for chunk in chunks[~self._seen[chunks]].tolist():
            start = chunk * self._chunk_rows
            found = _hash_rows(np.asarray(self._array[start : start + self._chunk_rows]))
            if found != self._hashes[chunk]:
                raise DataError(
                    f"{self._path} was altered (chunk {chunk}); delete {self._path.parent} and "
                    f"load the dataset again"
                )
            self._seen[chunk] = True
