"""The training loop: it names no algorithm and holds no state that a checkpoint lacks.

The batch and the random numbers of an update are functions of (seed, step), so a resumed run is
bit for bit the uninterrupted one on the same machine, versions and thread count.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import nn

from trajlm.algorithms.base import Algorithm
from trajlm.core.errors import DivergedError, Interrupted, StorageError
from trajlm.core.files import json_bytes, replace_file
from trajlm.core.machine import keep_memory
from trajlm.core.seeding import derive
from trajlm.sequence.batch import SequenceBatch
from trajlm.training import divergence
from trajlm.training.archive import CheckpointArchive
from trajlm.training.checkpoint import TRAINER, checkpoint_files, restore_checkpoint
from trajlm.training.clocks import EverySteps
from trajlm.training.config import TrainingConfig
from trajlm.training.held_out import held_out_metrics, seed_generators
from trajlm.training.lock import RunLock
from trajlm.training.metrics import Metrics
from trajlm.training.objective import Gradient, objectives_of, rate_metrics, update_metrics
from trajlm.training.optim import FiniteGuard
from trajlm.training.precision import choose_precision
from trajlm.training.signals import StopSignals
from trajlm.training.state import check_state, trainer_state

logger = logging.getLogger(__name__)


class BatchSource(Protocol):
    """Where batches come from: a pure function of the step (the loader's seed is its own)."""

    def batch(self, step: int) -> SequenceBatch: ...


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How training ended. `step`: updates done in all. `updates_per_s` and `seconds` are of this
    process's updates alone (0 where there were none); `metrics` holds the last value of each number that was written."""

    step: int
    stopped_by: Literal["steps", "time_limit"]
    updates_per_s: float
    seconds: float
    checkpoint: Path
    best_step: int | None
    metrics: Mapping[str, float]


class Trainer:
    """Trains `model` into `folder` (checkpoints/, metrics.jsonl, tb/).

    `validation` gives the held-out batches. `on_evaluate(step)` evaluates the model and returns
    numbers by name; `evaluation/score` (higher is better) chooses the best checkpoint where
    policies are evaluated along the way. `resume` goes on from the newest valid checkpoint of the
    folder; without it a folder that has some is refused. `allow_changes` lets a resumed run differ
    in what its updates do (learning rate, batch size, ...).
    """

    def __init__(
        self,
        model: Algorithm,
        *,
        config: TrainingConfig,
        loader: BatchSource,
        folder: Path,
        seed: int,
        validation: Callable[[], Iterable[SequenceBatch]] | None = None,
        on_evaluate: Callable[[int], Mapping[str, float]] | None = None,
        reporter: Metrics | None = None,
        device: torch.device | str = "cpu",
        resume: bool = False,
        allow_changes: bool = False,
    ) -> None:
        self.config, self.loader, self.folder, self.seed = config, loader, Path(folder), seed
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.module: nn.Module = self.model  # what is called: a distributed wrapper goes here
        self.validation, self.on_evaluate = validation, on_evaluate
        self.resume, self.allow_changes = resume, allow_changes
        self.precision = choose_precision(config.precision, device=self.device)
        self.objectives = objectives_of(model, config)
        self.optimizers = [objective.optimizer for objective in self.objectives]
        self.guard = FiniteGuard(self.optimizers, device=self.device)
        self.metrics = reporter or Metrics(
            self.folder, total_steps=config.steps, tensorboard=config.tensorboard
        )
        self.archive = CheckpointArchive(self.folder / "checkpoints", keep_last=config.keep_last)
        self.signals = StopSignals()
        self.should_log = EverySteps(config.log_every)
        self.should_validate = EverySteps(config.validation_every)
        self.should_evaluate = EverySteps(config.evaluate_every)
        self.should_checkpoint = EverySteps(config.checkpoint_every)
        self.latest: dict[str, float] = {}
        self.saved_step = -1

    # ---- the loop ---------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train to the last update.

        Raises `DivergedError`, `Interrupted` (the state is saved), `StorageError`, and, on
        resuming, `CheckpointError` or `UsageError` where the run does not fit its checkpoint.
        """
        keep_memory()
        with RunLock(self.folder), self.signals:
            try:
                return self._loop(self._start())
            finally:
                self.metrics.close()

    def _loop(self, start: int) -> TrainResult:
        done, last = start, start >= self.config.steps
        while not (last or self.signals.received):
            self._update(done)
            done += 1
            last = done == self.config.steps or self._out_of_time()
            if self.should_log(done) or last:
                self._log(done)
            if self.should_validate(done) or last:
                self._validate(done)
            if self.should_checkpoint(done) or last:
                self._save(done)
            if self.should_evaluate(done) or last:
                self._evaluate(done)
        if self.signals.received:
            self._stop(done)
        if done == start:
            self._evaluate(done)
        return self._result(start, done)

    def _update(self, step: int) -> None:
        """The update with index `step`: for each phase loss, gradient, clip, schedule, step."""
        batch = self.loader.batch(step).to(self.device)
        gradients = []
        for number, objective in enumerate(self.objectives):
            found = self._gradient(batch, step, number)
            self.guard.watch(step * len(self.objectives) + number, found.loss.value, found.norm)
            objective.step(step, found.norm)
            if self.device.type == "cpu":  # a GPU's flag is read when it is waited for
                self._check_finite()
            gradients.append(found)
        with torch.no_grad():
            self.model.after_update()
        self.metrics.record(step + 1, update_metrics(self.objectives, gradients))

    def _gradient(self, batch: SequenceBatch, step: int, number: int = 0) -> Gradient:
        """The gradient of a phase of the update `step`; each phase draws its own random numbers."""
        words = (step, number) if number else (step,)
        seed_generators(derive(self.seed, *words), self.device)
        return self.objectives[number].gradient(self.module, batch, self.precision)

    # ---- on the clocks ----------------------------------------------------------------------

    def _log(self, done: int) -> None:
        self._check_finite()
        rates = rate_metrics(self.objectives, self.config, done - 1)
        self.latest |= self.metrics.write(done, rates, means=True)

    def _write(self, done: int, values: Mapping[str, float]) -> None:
        self.latest |= self.metrics.write(done, values)

    def _validate(self, done: int) -> None:
        """The mean loss and metrics of the held-out steps, without dropout."""
        if self.validation is None or self.signals.received:
            return
        with self._instead_of_updates("validation"):
            means = held_out_metrics(
                self.module,
                self.validation(),
                seed=self.seed,
                device=self.device,
                precision=self.precision,
            )
        if means:
            self._write(done, {f"validation/{name}": value for name, value in means.items()})
            self._consider(done, "validation/loss", means["loss"])

    def _evaluate(self, done: int) -> None:
        """What `on_evaluate` measures, once for each step. A signal cuts it short."""
        if self.on_evaluate is None or self.signals.received:
            return
        if self.metrics.log.values(done, "evaluation/"):
            return
        self._save(done)
        measured: Mapping[str, float] = {}
        with self._instead_of_updates("evaluation"), self.signals.interruptible():
            measured = self.on_evaluate(done)
        if measured:
            values = {k if "/" in k else f"evaluation/{k}": float(v) for k, v in measured.items()}
            self._write(done, values)
            self._consider(done, "evaluation/score", values.get("evaluation/score", math.nan))

    def _consider(self, done: int, metric: str, value: float) -> None:
        """Mark the checkpoint of `done` the best if no value was better before."""
        if metric != self.config.best_metric or not math.isfinite(value):
            return
        best, sign = self.archive.best, 1.0 if metric == "evaluation/score" else -1.0
        if best is None or best["metric"] != metric or sign * value > sign * best["value"]:
            self._save(done)
            self.archive.mark_best(done, metric=metric, value=value)

    @contextmanager
    def _instead_of_updates(self, stage: str) -> Iterator[None]:
        """The model in evaluation mode, its time not counted as updates."""
        self._check_finite()
        self.metrics.stage(stage)
        self.model.eval()
        try:
            with self.metrics.watch.pause():
                yield
        finally:
            self.model.train()
            self.metrics.stage("")

    def _out_of_time(self) -> bool:
        limit = self.config.time_limit
        return limit is not None and self.metrics.watch.seconds > limit

    # ---- start, save, stop ------------------------------------------------------------------

    def _start(self) -> int:
        """Make the folder ready; returns the updates done before."""
        logger.info("device: %s; precision: %s", self.device, self.precision)
        self.archive.open()
        steps = self.archive.steps
        if steps and not self.resume:
            raise StorageError(
                f"{self.folder}: holds a run of {steps[-1]} updates already; go on with it by "
                "--resume, or choose another name"
            )
        start = self._restore() if self.resume else 0
        self.model.train()
        self.metrics.open(start)
        if start:
            # What a process that was killed measured last may not have been acted on.
            name = self.config.best_metric
            self._consider(start, name, self.metrics.log.values(start, name).get(name, math.nan))
            if self.should_evaluate(start):
                self._evaluate(start)
        return start

    def _restore(self) -> int:
        step = self.archive.newest_valid()
        if step is None:
            logger.warning("%s: no checkpoint to resume from; starting at 0", self.archive.root)
            return 0
        where = self.archive.folder(step)
        state = restore_checkpoint(where, self.model, self.optimizers)
        self.saved_step = check_state(
            state, self._state(step), where=where / TRAINER, allow_changes=self.allow_changes
        )
        logger.info("resumed from %s", where)
        return self.saved_step

    def _state(self, step: int) -> dict[str, object]:
        return trainer_state(
            step,
            seed=self.seed,
            config=self.config,
            precision=self.precision,
            device=self.device,
        )

    def _save(self, done: int) -> None:
        """Write the checkpoint of `done` updates, unless it is there."""
        if done == self.saved_step:
            return
        self._check_finite()
        with self.metrics.watch.pause():
            files = checkpoint_files(self.model, self.optimizers, self._state(done))
            self.archive.save(done, files)
        self.saved_step = done

    def _stop(self, done: int) -> None:
        """Save and raise `Interrupted`."""
        self._save(done)
        received = self.signals.received
        assert received is not None
        raise Interrupted(
            f"{received.name}: stopped after update {done}, saved in {self.archive.folder(done)}; "
            f"go on with: trajlm train --resume {self.folder}",
            signal_number=int(received),
        )

    def _check_finite(self) -> None:
        """Raise `DivergedError` if an update was held back; the weights are those before it."""
        bad = self.guard.bad_step
        if bad is None:
            return
        step, number = divmod(bad, len(self.objectives))
        objective = self.objectives[number]
        self.model.train()
        batch = self.loader.batch(step).to(self.device)
        loss, norm = self._gradient(batch, step, number)
        facts = divergence.diagnose(self.model, batch, loss=loss.value, norm=norm)
        phase = {"phase": objective.name} if objective.name else {}
        facts = {"step": step, **phase, "learning_rate": objective.rate(step)} | facts
        path = self.folder / divergence.FILE
        replace_file(path, json_bytes(facts))
        kept = (
            f"the last checkpoint is of update {self.archive.steps[-1]}"
            if self.archive.steps
            else "there is no checkpoint yet"
        )
        raise DivergedError(
            f"update {step}: loss {facts['loss']}, gradient norm {facts['gradient_norm']}; {kept}; "
            f"try a lower training.learning_rate (details: {path})"
        )

    def _result(self, start: int, done: int) -> TrainResult:
        seconds = self.metrics.watch.seconds if done > start else 0.0
        best = self.archive.best
        return TrainResult(
            step=done,
            stopped_by="steps" if done >= self.config.steps else "time_limit",
            updates_per_s=(done - start) / max(seconds, 1e-9),
            seconds=seconds,
            checkpoint=self.archive.folder(done),
            best_step=best["step"] if best else None,
            metrics=dict(self.latest),
        )
