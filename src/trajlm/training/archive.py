"""The checkpoints of one run: `step-00001000/`, the links `last` and `best`, and what is kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trajlm.core.errors import CheckpointError
from trajlm.core.files import json_bytes, remove, replace_file, storage_errors
from trajlm.training.folder import read_folder, read_json, replace_link, write_folder

NAME = re.compile(r"step-(\d{8,})")
BEST = "best.json"
logger = logging.getLogger(__name__)


class CheckpointArchive:
    """Writes, finds and purges the checkpoints under `root`.

    `best` (step and value) is None until `mark_best`; it outlives the process in `best.json`.
    """

    def __init__(self, root: Path, *, keep_last: int) -> None:
        self.root, self.keep_last = root, keep_last

    def open(self) -> None:
        """Make the folder and clear away what a killed process left half-written."""
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            for leftover in self.root.glob("*.tmp"):
                logger.warning("%s: half-written by an earlier process; removed", leftover)
                remove(leftover)

    def folder(self, step: int) -> Path:
        return self.root / f"step-{step:08d}"

    @property
    def steps(self) -> list[int]:
        """The updates there are checkpoints of, ascending."""
        if not self.root.is_dir():
            return []
        names = (NAME.fullmatch(path.name) for path in self.root.iterdir())
        return sorted(int(match[1]) for match in names if match)

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        """Write a checkpoint, point `last` at it, and delete those no longer kept."""
        folder = self.folder(step)
        write_folder(folder, files)
        replace_link(self.root / "last", folder.name)
        self._purge(newest=step)
        return folder

    # ---- which is valid, which is best ------------------------------------------------------

    def newest_valid(self) -> int | None:
        """The newest step whose files agree with their manifest; None where there are none.

        Damaged newer ones are warned of and renamed, so that they are never taken for whole.
        Raises `CheckpointError` where there are checkpoints and all are damaged.
        """
        steps = self.steps
        damaged = []
        for step in reversed(steps):
            try:
                read_folder(self.folder(step))
            except CheckpointError as error:
                logger.warning("%s; looking for an older checkpoint", error)
                damaged.append(self.folder(step))
                continue
            if damaged:
                logger.warning("falling back to %s", self.folder(step))
                self._set_aside(damaged)
                replace_link(self.root / "last", self.folder(step).name)
            return step
        if steps:
            raise CheckpointError(f"{self.root}: all {len(steps)} checkpoints are damaged")
        return None

    def _set_aside(self, damaged: list[Path]) -> None:
        with storage_errors(self.root):
            for folder in damaged:
                aside = folder.with_name(f"{folder.name}.damaged")
                remove(aside)
                folder.rename(aside)
            best = self.root / "best"
            if best.is_symlink() and not best.exists():
                best.unlink()

    @property
    def best(self) -> dict[str, Any] | None:
        """`{"metric", "value", "step"}` of the best checkpoint, while it is there."""
        path = self.root / BEST
        if not path.is_file():
            return None
        try:
            record = read_json(path, path.read_bytes())
        except CheckpointError as error:
            logger.warning("%s; the best checkpoint is chosen afresh", error)
            return None
        step = record.get("step")
        return record if isinstance(step, int) and self.folder(step).is_dir() else None

    def mark_best(self, step: int, *, metric: str, value: float) -> None:
        """Point `best` at the checkpoint of `step`."""
        record = {"metric": metric, "value": value, "step": step}
        replace_file(self.root / BEST, json_bytes(record))
        replace_link(self.root / "best", self.folder(step).name)

    # ---- purge ------------------------------------------------------------------------------

    def _purge(self, *, newest: int) -> None:
        """Delete all but the last `keep_last`, the best and the one just written.

        That one is read back first: the only valid checkpoint must not be among the deleted.
        """
        best = self.best
        spared = {*self.steps[-self.keep_last :], newest, best["step"] if best else newest}
        doomed = [step for step in self.steps if step not in spared]
        if not doomed:
            return
        try:
            read_folder(self.folder(newest))
        except CheckpointError as error:
            logger.warning("%s right after it was written; no older checkpoint is deleted", error)
            return
        for step in doomed:
            aside = self.root / f"{self.folder(step).name}.purged.tmp"
            try:
                # Renamed first: a half-deleted folder must not carry a checkpoint's name.
                self.folder(step).replace(aside)
                remove(aside)
            except OSError as error:
                logger.warning("%s: not deleted (%s)", self.folder(step), error.strerror)
