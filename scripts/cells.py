"""Trainings as cells of a table: run side by side, each kept the moment it is there.

A cell is one `trajlm train` command. What it left in its results.json goes, with the command, as a
line into `rows.jsonl`; cells that have a line are not run again.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEPT = (
    *("algorithm", "recipe", "dataset", "data_hash", "env_id", "mujoco", "torch", "trajlm"),
    *("targets", "episodes", "evaluation_seed", "precision", "checkpoint", "updates", "threads"),
    *("training_seed", "machine"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`keys` tell cells apart; `arguments` follow `trajlm train`."""

    keys: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return "-".join(self.keys).replace("/", "-")

    @property
    def updates(self) -> int | None:
        """What `--steps` asks for; None where the recipe decides."""
        flags = list(self.arguments)
        return int(flags[flags.index("--steps") + 1]) if "--steps" in flags else None

    @property
    def command(self) -> str:
        return shlex.join(["trajlm", "train", *self.arguments])


def run_cells(
    cells: Sequence[Cell], *, folder: Path, runs: Path, workers: int
) -> list[dict[str, Any]]:
    """The rows of all cells, in their order; those that failed are named and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    runs.mkdir(parents=True, exist_ok=True)
    file = folder / "rows.jsonl"
    rows = {tuple(row["keys"]): row for row in read_rows(file)}
    refuse_other_commands(cells, rows, file)
    missing = [cell for cell in cells if cell.keys not in rows]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are there", flush=True)
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(run_cell, cell, runs): cell for cell in missing}
        for number, future in enumerate(as_completed(waiting), 1):
            cell = waiting[future]
            try:
                rows[cell.keys] = future.result()
            except (OSError, ValueError, RuntimeError) as error:
                print(f"{cell.name}: {error}", flush=True)
                continue
            with file.open("a") as lines:
                lines.write(json.dumps(rows[cell.keys]) + "\n")
            means = [row["return_mean"] for row in rows[cell.keys]["rows"]]
            print(f"{number}/{len(missing)} {cell.name}: {means}", flush=True)
    return [rows[cell.keys] for cell in cells if cell.keys in rows]


def refuse_other_commands(
    cells: Sequence[Cell], rows: Mapping[tuple[str, ...], Mapping[str, Any]], file: Path
) -> None:
    """A row that another command made is not the cell's: the table would mix them."""
    for cell in cells:
        if cell.keys in rows and rows[cell.keys]["command"] != cell.command:
            raise SystemExit(
                f"{file}: {cell.name} was made by {rows[cell.keys]['command']!r}, not by "
                f"{cell.command!r}; write to another folder"
            )


def run_cell(cell: Cell, runs: Path) -> dict[str, Any]:
    """Train and evaluate, or go on with what an earlier call left."""
    run = runs / cell.name
    arguments = ["--resume", str(run)]
    if not (run / "run.yaml").is_file():
        arguments = [*cell.arguments, "--output", str(runs), "--name", cell.name]
    with (runs / f"{cell.name}.log").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-m", "trajlm.cli.main", "train", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"ended with {done.returncode}; see {log.name}")
    (found,) = run.glob("eval/*/results.json")
    results = json.loads(found.read_text())
    protocol = {key: results["protocol"].get(key) for key in KEPT}
    if cell.updates is not None and protocol["updates"] != cell.updates:
        raise RuntimeError(f"{run} holds {protocol['updates']} updates; give other --runs")
    return {
        "keys": list(cell.keys),
        "command": cell.command,
        "protocol": protocol,
        "rows": results["rows"],
        "returns": read_returns(found.with_name("episodes.csv")),
    }


def read_returns(path: Path) -> list[float]:
    """Each episode's return, in the order of targets and seeds."""
    with path.open(newline="") as file:
        return [round(float(line["return"]), 3) for line in csv.DictReader(file)]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The lines of a `rows.jsonl`; none where there is none."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
