"""What a run tells: metrics.jsonl, TensorBoard, and a progress bar on stderr.

Values are kept as tensors and read when they are shown or written, so that no update waits for
the device.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from torch import Tensor

from trajlm.core.errors import StorageError
from trajlm.core.files import storage_errors
from trajlm.training.clocks import EverySeconds, Stopwatch

logger = logging.getLogger(__name__)


class Metrics:
    """The reporter of one run.

    `record` takes an update's tensors (`train/loss` among them), `write` puts their means since the last line and other
    numbers into `metrics.jsonl`. `progress=False` shows nothing; the files are written anyway.
    """

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        tensorboard: bool = False,
        progress: bool = True,
        stream: TextIO | None = None,
        title: str = "train",
    ) -> None:
        self.log = MetricsLog(folder / "metrics.jsonl")
        self.total_steps = total_steps
        self.watch = Stopwatch()
        self._tensorboard = TensorBoard(folder / "tb") if tensorboard else None
        self._display = Display(total_steps, title, stream or sys.stderr) if progress else None
        self._pending: dict[str, list[Tensor]] = {}
        self._marks: deque[tuple[int, float]] = deque(maxlen=64)
        self._last_line = (0, 0.0)
        self._tick = EverySeconds(0.5)
        self._origin = time.time()

    def open(self, step: int) -> None:
        """Start at `step` updates done: later lines of an earlier process are dropped."""
        self._origin = time.time() - self.log.open(step)
        if self._tensorboard:
            self._tensorboard.open(step)
        if self._display:
            self._display.open(step)
        self.watch = Stopwatch()
        self._last_line = (step, 0.0)
        self._marks = deque([(step, 0.0)], maxlen=64)

    def close(self) -> None:
        if self._display:
            self._display.close()
        if self._tensorboard:
            self._tensorboard.close()
        self.log.close()

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Keep an update's scalars; now and then show the progress. `step`: updates done."""
        for name, value in values.items():
            self._pending.setdefault(name, []).append(value.detach())
        if self._display and self._tick():
            self._marks.append((step, self.watch.seconds))
            loss = float(self._pending["train/loss"][-1])
            self._display.show(step, loss=loss, rate=self.rate)

    @property
    def rate(self) -> float:
        """Updates a second over the last half minute of updating (evaluation does not count)."""
        (first, start), (last, stop) = self._marks[0], self._marks[-1]
        return (last - first) / (stop - start) if stop > start else 0.0

    def write(
        self, step: int, values: Mapping[str, float], *, means: bool = False
    ) -> dict[str, float]:
        """One line of metrics.jsonl: `values`, and, with `means`, those of what was recorded since
        the last line with means, and the updates a second since then. Returns the line."""
        line: dict[str, float] = {"step": step, "time": round(time.time() - self._origin, 3)}
        if means and self._pending:
            line |= self._means()
            seconds = self.watch.seconds
            last_step, last_seconds = self._last_line
            line["perf/updates_per_s"] = (step - last_step) / max(seconds - last_seconds, 1e-9)
            self._last_line = (step, seconds)
        line |= values
        self.log.append(line)
        if self._tensorboard:
            self._tensorboard.add(step, line)
        return line

    def _means(self) -> dict[str, float]:
        names = list(self._pending)
        means = [torch.stack(self._pending[name]).float().mean() for name in names]
        self._pending.clear()
        return dict(zip(names, torch.stack([m.cpu() for m in means]).tolist(), strict=True))

    def stage(self, name: str) -> None:
        """Say what is being done instead of updates, or "" for updates again."""
        if self._display:
            self._display.stage(name)


class MetricsLog:
    """An append-only file of whole JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def open(self, step: int) -> float:
        """Drop lines after `step` and a last line that was cut short; then append.

        Returns the `time` of the last line that is kept, 0 where there is none.
        """
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            length, seconds = self._kept(step)
            os.ftruncate(self._descriptor, length)
        return seconds

    def _kept(self, step: int) -> tuple[int, float]:
        length, seconds = 0, 0.0
        for data in self.path.read_bytes().splitlines(keepends=True):
            try:
                line = json.loads(data)
                whole = data.endswith(b"\n") and line["step"] <= step
                if not whole:
                    break
                length, seconds = length + len(data), float(line["time"])
            except (ValueError, LookupError, TypeError):
                break
        return length, seconds

    def append(self, line: Mapping[str, float]) -> None:
        """One line; null where a number is not finite. A line is written whole or not at all."""
        plain = {k: v if math.isfinite(v) else None for k, v in line.items()}
        data = (json.dumps(plain) + "\n").encode()
        with storage_errors(self.path):
            before = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, data)
            except OSError:
                os.ftruncate(self._descriptor, before)
                raise
            if written < len(data):
                os.ftruncate(self._descriptor, before)
                raise StorageError(f"{self.path}: cannot be written (no space left); free space")

    def values(self, step: int, prefix: str) -> dict[str, float]:
        """The finite numbers of `step` whose names start with `prefix`."""
        lines = [json.loads(line) for line in self.path.read_bytes().splitlines()]
        return {
            name: value
            for line in lines
            if line["step"] == step
            for name, value in line.items()
            if name.startswith(prefix) and value is not None
        }

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class TensorBoard:
    """Event files, where TensorBoard is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def open(self, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info("no TensorBoard files: pip install 'trajlm[tensorboard]'")
            return
        with storage_errors(self.folder):
            self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)

    def add(self, step: int, line: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in line.items():
                if "/" in name:
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Display:
    """A progress bar on a terminal, elsewhere a plain line every ten seconds."""

    def __init__(self, total: int, title: str, stream: TextIO) -> None:
        self.total, self.title, self.stream = total, title, stream
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._line_due = EverySeconds(10.0)

    def open(self, step: int) -> None:
        if not self.stream.isatty():
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(file=self.stream),
            expand=True,
        )
        self._task = self._bar.add_task(self.title, total=self.total, completed=step, facts="")
        self._bar.start()

    def show(self, step: int, *, loss: float, rate: float) -> None:
        left = time_left((self.total - step) / rate) if rate > 0 else "?"
        facts = f"loss {loss:.4g}  {rate:.1f} updates/s  {left} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, facts=facts)
        elif self._line_due():
            print(f"{self.title} {step}/{self.total}  {facts}", file=self.stream, flush=True)

    def stage(self, name: str) -> None:
        if self._bar is not None:
            description = f"{self.title}: {name}" if name else self.title
            self._bar.update(self._task, description=description)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def time_left(seconds: float) -> str:
    """`1:02:03` or `4:05`."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
