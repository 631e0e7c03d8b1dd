"""Trainings as cells of a table: run side by side, each kept the moment it is there.

A cell is one `trajlm train` command, or a `trajlm evaluate` of another cell's run, so that one model is
scored in several ways. What it left in its results.json goes, with the command, as a
line into `rows.jsonl`; cells that have a line are not run again, and a cell that was interrupted goes
on from its checkpoint. One of `--episodes 0` is trained alone: its line holds no scores.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajlm.core.errors import StorageError
from trajlm.core.files import replace_file
from trajlm.runs.processes import Job, last_step, run_side_by_side
from trajlm.training.lock import RunLock

ROWS_FILE = "rows.jsonl"
LOCK_SECONDS = 90.0
KEPT = (
    *("algorithm", "recipe", "dataset", "data_hash", "env_id", "mujoco", "torch", "trajlm"),
    *("targets", "episodes", "evaluation_seed", "precision", "checkpoint", "updates", "threads"),
    *("training_seed", "machine"),
)
Row = dict[str, Any]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`keys` tell cells apart; `arguments` follow `trajlm train`, or, where `evaluates` names another
    cell whose run is there, `trajlm evaluate RUN`. `guide`: the cell whose run guides its plans."""

    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    evaluates: str = ""
    guide: str = ""

    @property
    def name(self) -> str:
        """A folder's name."""
        return re.sub(r"[^\w.%-]", "-", "-".join(self.keys))

    @property
    def updates(self) -> int | None:
        """What `--steps` asks for; None where the recipe decides."""
        return self._asked("--steps")

    @property
    def scored(self) -> bool:
        """Whether the model is evaluated after its training."""
        return self._asked("--episodes") != 0

    @property
    def command(self) -> str:
        if self.evaluates:
            guided = ("--guide", f"runs/{self.guide}") if self.guide else ()
            words = ["trajlm", "evaluate", f"runs/{self.evaluates}", *guided, *self.arguments]
            return shlex.join(words)
        return shlex.join(["trajlm", "train", *self.arguments])

    def _asked(self, flag: str) -> int | None:
        flags = list(self.arguments)
        return int(flags[flags.index(flag) + 1]) if flag in flags else None


def run_cells(
    cells: Sequence[Cell],
    *,
    folder: Path,
    runs: Path,
    workers: int,
    progress: Progress | None = None,
    kept: Callable[[Row], None] | None = None,
    way_on: str = "run the same command again to go on",
) -> tuple[list[Row], list[str]]:
    """The rows of all cells, in their order, and what is wrong with those that failed.

    `folder` holds rows.jsonl, `runs` the run folders, `workers` cells run at a time with a thread
    each; `kept(row)` is told of each new row. Raises `StorageError` where another command made a
    row of the same keys, `Interrupted` after a signal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs.mkdir(parents=True, exist_ok=True)
    file = folder / ROWS_FILE
    rows = {tuple(row["keys"]): row for row in read_rows(file)}
    refuse_other_commands(cells, rows, file)
    missing = [cell for cell in cells if cell.keys not in rows]
    by_name = {cell.name: cell for cell in missing}
    failures: list[str] = []

    def ended(job: Job, status: int) -> bool:
        cell = by_name[job.name]
        if status:
            failures.append(str(job.failure(status)))
            return True
        try:
            row = read_cell(cell, runs)
        except (OSError, ValueError) as error:
            failures.append(f"{cell.name}: {error}")
            return True
        rows[cell.keys] = row
        write_rows(file, list(rows.values()))
        if kept is not None:
            kept(row)
        return True

    def waiting() -> None:
        if progress is not None:
            progress(*shares(cells, rows, runs))

    for cell in missing:
        _wait_for_lock(runs / cell.name)
    run_side_by_side(
        [_job(cell, runs) for cell in missing],
        at_once=workers,
        threads=1,
        ended=ended,
        waiting=waiting,
        way_on=way_on,
    )
    return [rows[cell.keys] for cell in cells if cell.keys in rows], failures


def told(say: Callable[[str], None]) -> Callable[[Row], None]:
    """What `kept` may be in a program: each new row's name and mean returns as a line."""

    def say_row(row: Row) -> None:
        means = [each["return_mean"] for each in row["rows"]]
        say(f"{'-'.join(row['keys'])}: {means}")

    return say_row


def refuse_other_commands(
    cells: Sequence[Cell], rows: Mapping[tuple[str, ...], Mapping[str, Any]], file: Path
) -> None:
    """A row that another command made is not the cell's: the table would mix them."""
    for cell in cells:
        if cell.keys in rows and rows[cell.keys]["command"] != cell.command:
            raise StorageError(
                f"{file}: {cell.name} was made by {rows[cell.keys]['command']!r}, not by "
                f"{cell.command!r}; write to another folder"
            )


def shares(
    cells: Sequence[Cell], rows: Mapping[tuple[str, ...], Row], runs: Path
) -> tuple[str, float]:
    """What is under way, in words, and the share of all updates that is made."""
    done, under_way = 0.0, []
    for cell in cells:
        if cell.keys in rows:
            done += 1.0
        elif step := last_step(runs / cell.name / "metrics.jsonl"):
            under_way.append(f"{cell.name}: {step:,}")
            done += min(0.99, step / cell.updates) if cell.updates else 0.0
    there = sum(cell.keys in rows for cell in cells)
    what = "evaluations" if all(cell.evaluates for cell in cells) else "trainings"
    words = f"{there} of {len(cells)} {what}" + "".join(f", {each}" for each in under_way)
    return words, done / max(1, len(cells))


def read_cell(cell: Cell, runs: Path) -> Row:
    """The row of a finished cell. Raises `StorageError` where its run is another training's."""
    run = runs / cell.name
    scores: Row = {"rows": [], "returns": []}
    if cell.scored:
        found = sorted(run.glob("results.json" if cell.evaluates else "eval/*/results.json"))
        if len(found) != 1:
            raise StorageError(f"{run} holds {len(found)} evaluations, not one; see {run}.log")
        results = json.loads(found[0].read_text())
        known = results["protocol"]
        scores = {
            "rows": results["rows"],
            "timing": results["timing"],
            "returns": read_returns(found[0].with_name("episodes.csv")),
        }
    else:
        known = trained_facts(run)
    if not cell.evaluates:
        meta = _meta(run)
        scores["updates_per_s"] = meta["training"]["updates_per_s"]
        scores["training_precision"] = meta["precision"]["name"]
    protocol = {key: known.get(key) for key in KEPT}
    if cell.updates is not None and protocol["updates"] != cell.updates:
        raise StorageError(f"{run} holds {protocol['updates']} updates; choose another folder")
    return {"keys": list(cell.keys), "command": cell.command, "protocol": protocol, **scores}


def trained_facts(run: Path) -> Row:
    """What meta.json knows of a run, under the names of a protocol of scores."""
    meta = _meta(run)
    return {
        **meta,
        **meta["versions"],
        "training_seed": meta["seed"],
        "precision": meta["precision"]["name"],
        "updates": meta["training"]["step"],
    }


def _meta(run: Path) -> Row:
    found: Row = json.loads((run / "meta.json").read_text())
    return found


def read_returns(path: Path) -> list[float]:
    """Each episode's return, in the order of targets and seeds."""
    with path.open(newline="") as file:
        return [round(float(line["return"]), 3) for line in csv.DictReader(file)]


def read_rows(file: Path) -> list[Row]:
    """The lines of a `rows.jsonl`; none where there is none."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """All lines in one rename, so that a reader or a power cut finds whole ones."""
    replace_file(file, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _job(cell: Cell, runs: Path) -> Job:
    """Train and evaluate, or go on with what an earlier call left; or evaluate alone."""
    run = runs / cell.name
    if cell.evaluates:
        return Job(
            name=cell.name,
            arguments=(
                *("evaluate", str(runs / cell.evaluates)),
                *(("--guide", str(runs / cell.guide)) if cell.guide else ()),
                *(*cell.arguments, "--output", str(run)),
            ),
            log=runs / f"{cell.name}.log",
        )
    arguments = ("train", *cell.arguments, "--output", str(runs), "--name", cell.name)
    if (run / "run.yaml").is_file():
        arguments = ("train", "--resume", str(run))
    return Job(name=cell.name, arguments=arguments, log=runs / f"{cell.name}.log")


def _wait_for_lock(run: Path) -> None:
    """A process whose parent was killed is saving: its folder is free when it has."""
    deadline = time.monotonic() + LOCK_SECONDS
    while run.is_dir():
        try:
            with RunLock(run):
                return
        except StorageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
