"""Run folders read into plain data.

Whatever is missing or broken inside a run becomes a sentence in `gaps`; only a folder that is no
run is an error. Nothing but text and video files is read, and never more than `MAX_FILE_BYTES`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trajlm.core.config import read_yaml
from trajlm.core.errors import DataError, UsageError
from trajlm.core.formats import GROUP_FORMAT, RESULTS_FORMAT
from trajlm.report.formatting import finite, plain

MAX_FILE_BYTES = 100_000_000
RUN_FILES = ("run.yaml", "meta.json", "metrics.jsonl", "eval")
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One line of `episodes.csv`; `target` is None where no return was asked for."""

    target: float | None
    value: float
    terminated: bool
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One folder `eval/STEP`."""

    folder: Path
    step: int
    protocol: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)
    episodes: tuple[Episode, ...] = ()
    videos: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run. `metrics`: by name, values by update."""

    name: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    config_text: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    gaps: tuple[str, ...] = ()

    @property
    def last_step(self) -> int | None:
        """The last update that left a line in metrics.jsonl."""
        return max((max(values) for values in self.metrics.values() if values), default=None)

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of the latest update that has rows."""
        return next((e for e in reversed(self.evaluations) if e.rows), None)

    @property
    def videos(self) -> tuple[Path, ...]:
        """The videos of the latest evaluation that has any."""
        return next((e.videos for e in reversed(self.evaluations) if e.videos), ())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the page compares: one run, or a group of runs that differ only in their seed."""

    name: str
    folder: Path
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    is_group: bool = False
    group_protocol: Mapping[str, Any] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The group's own, else that of the first evaluated run."""
        if self.group_protocol:
            return self.group_protocol
        evaluated = (run.evaluation for run in self.runs)
        return next((e.protocol for e in evaluated if e is not None), {})

    @property
    def dataset(self) -> Mapping[str, Any]:
        """The dataset's summary, of the first run that has one."""
        return next((run.dataset for run in self.runs if run.dataset), {})

    @property
    def config(self) -> Mapping[str, Any]:
        return next((run.config for run in self.runs if run.config), {})

    @property
    def meta(self) -> Mapping[str, Any]:
        return next((run.meta for run in self.runs if run.meta), {})

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """Episodes of every run's latest evaluation."""
        evaluated = (run.evaluation for run in self.runs)
        return tuple(episode for e in evaluated if e is not None for episode in e.episodes)


def read_entries(folders: Sequence[Path]) -> list[Entry]:
    """Each folder once, in order, under a name of its own.

    A group that did not finish is given seed by seed. Raises `DataError` for a folder that is no
    run and where there is no folder at all.
    """
    unique = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not unique:
        raise DataError("no run given; pass a folder that 'trajlm train' wrote, such as runs/NAME")
    found: list[Entry] = []
    for folder, name in zip(unique, _names(unique), strict=True):
        found += _entries_in(folder, name=name)
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = [plain("/".join(folder.parts[-depth:])) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _entries_in(folder: Path, *, name: str) -> list[Entry]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; 'trajlm train' writes run folders under runs/")
    gaps: list[str] = []
    seeds = [c for c in _children(folder) if c.name.startswith("seed-") and is_run(c)]
    results = folder / "results.json"
    summary = read_json(results, gaps) if results.is_file() else {}
    grouped = str(summary.get("format", "")).startswith("trajlm.group/")
    if grouped or (folder / "group.json").is_file() or seeds:
        return _group(folder, name, summary, seeds, gaps)
    if is_run(folder):
        return [_single(read_run(folder, name=name))]
    if any(is_run(child) for child in _children(folder)):
        raise DataError(f"{folder}: not a run, but it holds runs; pass {folder}/*")
    raise DataError(
        f"{folder}: not a run (none of {', '.join(RUN_FILES)} is in it); "
        "pass a folder that 'trajlm train' wrote, such as runs/NAME"
    )


def _single(run: Run, *gaps: str) -> Entry:
    rows = run.evaluation.rows if run.evaluation else ()
    return Entry(name=run.name, folder=run.folder, runs=(run,), rows=rows, gaps=gaps + run.gaps)


def _group(
    folder: Path, name: str, summary: Mapping[str, Any], found: Sequence[Path], gaps: list[str]
) -> list[Entry]:
    """Only folders inside the group's own are read, whatever its file names."""
    named = summary.get("runs")
    listed = [folder / str(run) for run in named] if isinstance(named, list) else []
    inside = [path for path in listed if path.resolve().is_relative_to(folder) and is_run(path)]
    if len(inside) < len(listed):
        gaps.append(f"{len(listed) - len(inside)} of the {len(listed)} runs it names are missing.")
    runs = tuple(read_run(path, name=f"{name}/{plain(path.name)}") for path in inside or found)
    rows = _rows(summary.get("rows")) if summary.get("format") == GROUP_FORMAT else ()
    if rows or not runs:
        gaps += [f"{run.folder.name}: {gap}" for run in runs for gap in run.gaps]
        group = Entry(
            name=name,
            folder=folder,
            runs=runs,
            rows=rows,
            is_group=True,
            group_protocol=_mapping(summary.get("protocol")),
            gaps=tuple(gaps),
        )
        return [group]
    gaps.append(f"{name} has no results over its seeds: it did not finish. Each seed stands alone.")
    return [_single(run, *(gaps if run is runs[0] else ())) for run in runs]


def is_run(folder: Path) -> bool:
    """Whether the folder holds any of a run's files."""
    return folder.is_dir() and any((folder / name).exists() for name in RUN_FILES)


def read_run(folder: Path, *, name: str) -> Run:
    """Everything a run left behind; what is missing or broken is named in `gaps`."""
    gaps: list[str] = []
    config: Mapping[str, Any] = {}
    try:
        config = read_yaml(folder / "run.yaml")
    except UsageError as error:
        gaps.append(f"No configuration: {_within(str(error), folder)}.")
    evaluations = [read_evaluation(child, gaps) for child in _children(folder / "eval")]
    evaluations.sort(key=lambda evaluation: (evaluation.step, evaluation.folder.name))
    return Run(
        name=name,
        folder=folder,
        config=config,
        config_text=_read_text(folder / "run.yaml", gaps) if config else "",
        meta=read_json(folder / "meta.json", gaps),
        dataset=read_json(folder / "dataset.json", gaps),
        metrics=read_metrics(folder / "metrics.jsonl", gaps),
        evaluations=tuple(evaluations),
        gaps=tuple(gaps),
    )


def read_evaluation(folder: Path, gaps: list[str]) -> Evaluation:
    """One `eval/STEP` folder; the step is the number in its name."""
    results = read_json(folder / "results.json", gaps)
    if results and results.get("format") != RESULTS_FORMAT:
        found = str(results.get("format"))[:40]
        gaps.append(
            f"eval/{folder.name}/results.json has format {found!r}, not {RESULTS_FORMAT!r}."
        )
        results = {}
    digits = re.findall(r"\d+", folder.name)
    rows = results.get("rows")
    return Evaluation(
        folder=folder,
        step=int(digits[-1][:15]) if digits else -1,
        protocol=_mapping(results.get("protocol")),
        rows=_rows(rows),
        timing=_mapping(results.get("timing")),
        episodes=read_episodes(folder / "episodes.csv", gaps) if results else (),
        videos=tuple(
            child
            for child in _children(folder, files=True)
            if child.suffix.lower() in VIDEO_TYPES and not child.name.startswith(".")
        ),
    )


def read_episodes(path: Path, gaps: list[str]) -> tuple[Episode, ...]:
    """The lines of `episodes.csv` that hold a finite return."""
    text = _read_text(path, gaps)
    episodes, skipped = [], 0
    for line in csv.DictReader(text.splitlines()):
        value = _number(line.get("return"))
        failed = _flag(line.get("failed"))
        if value is None:
            skipped += not failed
            continue
        episodes.append(
            Episode(
                target=_number(line.get("target_return")),
                value=value,
                terminated=_flag(line.get("terminated")),
                failed=failed,
            )
        )
    if skipped:
        gaps.append(f"{_label(path)}: lines without a return were left out ({skipped}).")
    return tuple(episodes)


def read_metrics(path: Path, gaps: list[str]) -> dict[str, dict[int, float]]:
    """Values by name and update; after a resume the later line wins. Torn lines are left out."""
    metrics: dict[str, dict[int, float]] = {}
    torn = 0
    for line in _read_text(path, gaps).splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            torn += 1
            continue
        step = finite(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            torn += 1
            continue
        for name, value in entry.items():
            number = finite(value)
            if number is not None and name not in ("step", "time"):
                metrics.setdefault(name, {})[int(step)] = number
    if torn:
        gaps.append(f"{path.name}: lines that are not whole were left out ({torn}).")
    return {name: dict(sorted(values.items())) for name, values in metrics.items()}


def read_json(path: Path, gaps: list[str]) -> dict[str, Any]:
    """A JSON object; NaN and infinity become None. Empty, with a gap, where it cannot be read."""
    text = _read_text(path, gaps)
    if not text:
        return {}
    try:
        loaded = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        gaps.append(f"{_label(path)} is damaged (not a JSON object).")
        return {}
    return loaded


def _read_text(path: Path, gaps: list[str]) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            gaps.append(
                f"{_label(path)} is larger than {MAX_FILE_BYTES // 1_000_000} MB: not read."
            )
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        gaps.append(f"{_label(path)} is missing.")
    except OSError as error:
        gaps.append(f"{_label(path)} cannot be read ({error.strerror}).")
    return ""


def _label(path: Path) -> str:
    inside_eval = path.parent.parent.name == "eval"
    return f"eval/{path.parent.name}/{path.name}" if inside_eval else path.name


def _within(message: str, folder: Path) -> str:
    return message.replace(f"{folder}/", "")


def _children(folder: Path, *, files: bool = False) -> list[Path]:
    try:
        return sorted(c for c in folder.iterdir() if (c.is_file() if files else c.is_dir()))
    except OSError:
        return []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any) -> tuple[Row, ...]:
    return tuple(row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def _number(text: str | None) -> float | None:
    try:
        return finite(float(text or ""))
    except ValueError:
        return None


def _flag(text: str | None) -> bool:
    return (text or "").strip().lower() in ("1", "1.0", "true", "yes")
