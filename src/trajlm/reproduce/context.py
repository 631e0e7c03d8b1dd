"""What an experiment's `run` is handed: its scale and seeds, and work that is kept.

    FOLDER/
      protocol.json   what was asked for; another protocol is refused
      data/ID/        datasets made for this run, with their hashes in datasets.json
      runs/NAME/      trainings, each a run folder, and further evaluations of them; rows.jsonl has a
                      line a finished one
      parts/KEY.json  whatever else was computed
      results.json, picture.png, picture.svg

All of it is written whole or not at all: whenever a run is stopped, the same command goes on.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajlm.core.errors import DataError, TrajlmError
from trajlm.core.files import json_bytes, replace_file
from trajlm.reproduce import taking_part
from trajlm.reproduce.base import Held, Scale
from trajlm.runs.cells import (
    ROWS_FILE,
    Cell,
    Progress,
    Row,
    read_rows,
    refuse_other_commands,
    run_cells,
)
from trajlm.runs.folder import finite

if TYPE_CHECKING:
    from trajlm.data.store import TrajectoryStore

DATASETS_FILE = "datasets.json"
CLOCK_FILE = "clock.json"


class TrainingsFailed(TrajlmError):
    """Some trainings ended with an error; the others are kept."""


@dataclass(kw_only=True)
class Context:
    """One run of an experiment. `algorithms` are recipes, ALGORITHM/RECIPE; `seeds` 0 to N-1.

    `data`: references of the user's own data, in place of the experiment's. `only`: names of the
    trainings that this call may run; None: all.
    """

    scale_name: str
    scale: Scale
    seeds: tuple[int, ...]
    algorithms: tuple[str, ...]
    folder: Path
    workers: int = 2
    progress: Progress | None = None
    data: tuple[str, ...] = ()
    only: frozenset[str] | None = None

    def __post_init__(self) -> None:
        self.commands: dict[str, str] = {}
        self._promised: dict[str, Callable[[], object]] = {}
        self._started = time.monotonic()
        self._before = float(self._read(CLOCK_FILE).get("seconds", 0.0))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The scale's settings."""
        return self.scale.settings

    @property
    def seconds(self) -> float:
        """Wall-clock time of this call and of the interrupted ones before it."""
        return self._before + time.monotonic() - self._started

    def held(self, count: int, *, of: int) -> Held:
        """Whether a claim held in `count` of `of` cases; `debug`, or no case, cannot say."""
        if self.scale_name == "debug" or not of:
            return "untested"
        return "yes" if count == of else "partly" if count else "no"

    # ---- data -----------------------------------------------------------------------------------

    def dataset(self, dataset_id: str, make: Callable[[Path], object]) -> str:
        """The path of a dataset, for `--data`; made once.

        `make(root)` writes the Minari dataset ROOT/dataset_id (with `collect(..., root=root)` or
        `minari_writer.write(..., root=root)`, which write it whole or not at all). Its hash goes into
        the results. Raises `DataError` where it is no longer what it was when first made.
        """
        from trajlm.data.load import load_dataset

        folder = self.folder / "data" / dataset_id
        if not folder.exists():
            self._tell(f"making {dataset_id}", 0.0)
            make(self.folder / "data")
        self._note_data(dataset_id, load_dataset(str(folder)).content_hash, place=str(folder))
        return str(folder)

    def _note_data(self, name: str, found: str, *, place: str) -> None:
        known = self.datasets
        if known.get(name, found) != found:
            raise DataError(
                f"{place}: no longer the data that this run began with; give it back, or choose "
                "another --output"
            )
        if name not in known:
            self._write(DATASETS_FILE, {**known, name: found})

    def shipped(self, body: str, tier: str, *, steps: int, part: str = "") -> str:
        """The path of a tier of a body, of `steps` steps, from the shipped behaviours.

        Several sizes of one tier are told apart by `part`, a folder of their own.
        """
        from trajlm.collect.collector import collect, dataset_id

        name = dataset_id(body, tier)
        key = f"{part}/{name}" if part else name
        self.commands[key] = f"trajlm collect {body}/{tier} --steps {steps}"
        return self.dataset(key, lambda root: collect(body, tier, steps=steps, root=root / part))

    def promised(self, body: str, tier: str, *, steps: int) -> str:
        """As `shipped`, but collected only when a training needs it."""
        from trajlm.collect.collector import dataset_id

        name = dataset_id(body, tier)
        path = str(self.folder / "data" / name)
        self.commands[name] = f"trajlm collect {body}/{tier} --steps {steps}"
        self._promised[path] = lambda: self.shipped(body, tier, steps=steps)
        return path

    def given(self, reference: str) -> TrajectoryStore:
        """A dataset of the user's, for `--data reference`; its hash goes into the results.

        Raises `DataError` where it cannot be read, or names no environment to be scored in.
        """
        from trajlm.data.load import load_dataset

        store = load_dataset(reference)
        if store.env_id is None:
            raise DataError(
                f"{reference}: names no environment, so nothing can be scored; set the file's attribute "
                "env_id, or name it as D4RL does (hopper_medium-v2.hdf5)"
            )
        self._promised[reference] = lambda: self._note_data(
            store.name, store.content_hash, place=reference
        )
        return store

    @property
    def datasets(self) -> dict[str, str]:
        """The hash of every dataset that was made, by its id."""
        return {str(key): str(value) for key, value in self._read(DATASETS_FILE).items()}

    # ---- trainings ------------------------------------------------------------------------------

    def cell(
        self,
        *keys: str,
        recipe: str,
        data: str,
        seed: int,
        steps: int | None = None,
        episodes: int | None = None,
        targets: Sequence[float | str] = (),
        extra: Sequence[str] = (),
    ) -> Cell:
        """A training with its evaluation, one thread. `keys` tell it from the others; the seed is
        added to them. `targets` are asked for where the algorithm takes a target; `extra` are
        further flags of `trajlm train`."""
        arguments = [recipe, "--data", data, "--seed", str(seed), "--threads", "1"]
        arguments += ["--evaluation.no-video", "--training.no-tensorboard"]
        if steps is not None:
            arguments += ["--steps", str(steps)]
        if episodes is not None:
            arguments += ["--episodes", str(episodes)]
        if targets and taking_part.takes_target(recipe):
            arguments += ["--policy.target-return", *map(str, targets)]
        return Cell(keys=(*keys, str(seed)), arguments=(*arguments, *extra))

    def train(self, cells: Sequence[Cell]) -> list[Row]:
        """The rows of all cells in their order: `keys`, `command`, `protocol`, `rows` (one a target),
        `timing` of the evaluation (seconds), `returns` (every episode's, in the order of targets and
        seeds), `updates_per_s` and `training_precision` (that of `protocol` is the scores').

        Runs what is not there, `workers` at a time; where `only` is set, no more than it names, and
        rows that are then not there are left out. Raises `UsageError` where an algorithm does not
        fit its data, `TrainingsFailed` once the others have ended, `Interrupted` after a signal.
        """
        rows = self._kept()
        wanted = [cell for cell in cells if self.only is None or cell.name in self.only]
        missing = [cell for cell in wanted if cell.keys not in rows]
        for data in dict.fromkeys(map(taking_part.data_of, missing)):
            self._promised.get(data, lambda: None)()
        taking_part.refuse_misfits(missing)
        return self._made(cells, wanted)

    def kept_keys(self) -> set[tuple[str, ...]]:
        """The keys of the cells whose rows are there."""
        return set(self._kept())

    def _kept(self) -> dict[tuple[str, ...], Row]:
        return {tuple(row["keys"]): row for row in read_rows(self.folder / ROWS_FILE)}

    def evaluation(
        self,
        *keys: str,
        of: Cell,
        episodes: int,
        policy: Mapping[str, Any] | None = None,
        guide: Cell | None = None,
    ) -> Cell:
        """A further evaluation of the run of `of`, one thread: for `evaluate`. `keys` are added to
        those of `of`; `policy` are settings of its policy that differ from the run's, `guide` a cell
        whose critic guides its plans."""
        arguments = ["--episodes", str(episodes), "--threads", "1", "--evaluation.no-video"]
        for name, value in (policy or {}).items():
            arguments += [f"--policy.{name.replace('_', '-')}", str(value)]
        return Cell(
            keys=(*of.keys, *keys), arguments=tuple(arguments), evaluates=of.name,
            guide=guide.name if guide else "",
        )  # fmt: skip

    def evaluate(self, cells: Sequence[Cell]) -> list[Row]:
        """As `train`, for evaluations of runs that are there: one model under several policies.
        Where `only` is set, of the runs that it names."""
        named = [cell for cell in cells if self.only is None or cell.evaluates in self.only]
        return self._made(cells, named)

    def _made(self, cells: Sequence[Cell], wanted: Sequence[Cell]) -> list[Row]:
        """The rows of all cells that are there, once those that are `wanted` are."""
        _, failures = run_cells(
            wanted,
            folder=self.folder,
            runs=self.folder / "runs",
            workers=self.workers,
            progress=self.progress,
            kept=lambda row: self.keep_time(),
        )
        self.commands |= {cell.name: cell.command for cell in cells}
        self.keep_time()
        if failures:
            raise TrainingsFailed(
                f"{len(failures)} of {len(wanted)} commands failed, the first: {failures[0]}; "
                f"logs in {self.folder / 'runs'}"
            )
        rows = self._kept()
        refuse_other_commands(cells, rows, self.folder / ROWS_FILE)
        return [rows[cell.keys] for cell in cells if cell.keys in rows]

    def run_of(self, cell: Cell) -> Path:
        """The run folder of a cell, with its checkpoints."""
        return self.folder / "runs" / cell.name

    # ---- anything else --------------------------------------------------------------------------

    def part(self, key: str, compute: Callable[[], Any]) -> Any:
        """`compute()`, plain JSON, kept under `key` in parts/: a second call reads it."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", key):
            raise ValueError(f"part {key!r}: letters, digits, '-', '_' and '.' alone")
        name = f"parts/{key}.json"
        if not (self.folder / name).is_file():
            self._tell(key, 0.0)
            self._write(name, {"key": key, "value": finite(compute())})
            self.keep_time()
        return self._read(name)["value"]

    def keep_time(self) -> None:
        """Note the time spent, so that it adds up over interruptions."""
        self._write(CLOCK_FILE, {"seconds": round(self.seconds, 1)})

    def _tell(self, what: str, share: float) -> None:
        if self.progress is not None:
            self.progress(what, share)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        value: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return value

    def _write(self, name: str, value: Any) -> None:
        replace_file(self.folder / name, json_bytes(value))
