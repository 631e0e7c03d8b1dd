"""Folders that are written whole or not at all, and whose bytes are checked when read.

A folder is written under a name ending in `.tmp`, synced, then renamed; `manifest.json` holds the
SHA-256 and the size of every other file. None of the common formats notices a flipped bit itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from trajlm.core.errors import CheckpointError
from trajlm.core.files import json_bytes, remove, storage_errors, write_bytes

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "trajlm.manifest/1"
MAX_JSON_BYTES = 10_000_000
logger = logging.getLogger(__name__)


def sync_folder(path: Path) -> None:
    """Make the names inside a folder last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_folder(destination: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` and their manifest as a folder, in one rename.

    A folder of that name is replaced. Raises `StorageError`; what was there before then stands.
    """
    manifest = {
        "format": MANIFEST_FORMAT,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
    }
    temporary = destination.with_name(f"{destination.name}.tmp")
    with storage_errors(destination):
        remove(temporary)
        temporary.mkdir(parents=True)
        try:
            for name, data in files.items():
                write_bytes(temporary / name, data)
            write_bytes(temporary / MANIFEST, json_bytes(manifest))
            sync_folder(temporary)
            if destination.exists():
                displaced = destination.with_name(f"{destination.name}.displaced.tmp")
                remove(displaced)
                destination.rename(displaced)
                temporary.rename(destination)
                remove(displaced)
            else:
                temporary.rename(destination)
            sync_folder(destination.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def replace_link(link: Path, target: str) -> None:
    """Point a symbolic link at `target` in one rename; a file system without links is warned of."""
    temporary = link.with_name(f"{link.name}.tmp")
    try:
        remove(temporary)
        temporary.symlink_to(target, target_is_directory=True)
        temporary.replace(link)
    except OSError as error:
        logger.warning("%s: the link to %s was not made (%s)", link, target, error.strerror)


def read_json(path: Path, data: bytes) -> dict[str, Any]:
    """The mapping in `data`, the content of `path`. Raises `CheckpointError`."""

    def refuse(literal: str) -> NoReturn:
        raise ValueError(f"{literal} is not JSON")

    if len(data) > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: larger than {MAX_JSON_BYTES} bytes")
    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a mapping at the top")
    return value


def read_folder(folder: Path, *, unverified: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The files a folder's manifest names, read and checked against it.

    Extra files are warned of and not read. Without a manifest the folder is refused, or, where
    `unverified` names files that are good enough unchecked, those are read with a warning.
    Raises `CheckpointError` naming the file that is missing or differs.
    """
    try:
        listed = read_manifest(folder)
        present = {path.name for path in folder.iterdir()} - {MANIFEST}
        if listed is None:
            if not unverified:
                raise CheckpointError(f"{folder / MANIFEST}: missing, so nothing can be verified")
            logger.warning("%s: no %s; the files are loaded unverified", folder, MANIFEST)
            return {name: (folder / name).read_bytes() for name in unverified if name in present}
        for name in sorted(present - set(listed)):
            logger.warning("%s: not in the manifest; ignored", folder / name)
        return {name: _read_checked(folder / name, entry) for name, entry in listed.items()}
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder}: cannot be read ({error.strerror or error})"
        ) from None


def read_manifest(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The manifest's entry of each file; None where there is no manifest."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    if not path.is_file():
        return None
    manifest = read_json(path, path.read_bytes())
    files = manifest.get("files")
    if manifest.get("format") != MANIFEST_FORMAT:
        raise CheckpointError(
            f"{path}: format {manifest.get('format')!r} found, {MANIFEST_FORMAT!r} needed"
        )
    if not isinstance(files, dict) or not all(isinstance(e, dict) for e in files.values()):
        raise CheckpointError(f"{path}: 'files' is not a mapping of mappings")
    for name in files:
        if Path(name).name != name or name in ("", ".", "..", MANIFEST):
            raise CheckpointError(f"{path}: {name!r} is not a name of a file in this folder")
    return files


def _read_checked(path: Path, entry: Mapping[str, Any]) -> bytes:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing")
    found, wanted = path.stat().st_size, entry.get("bytes")
    if found != wanted:
        raise CheckpointError(f"{path}: damaged ({found} bytes, the manifest says {wanted})")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise CheckpointError(f"{path}: damaged (its SHA-256 differs from the manifest's)")
    return data
