"""The benchmarks by name: each gives rows of what was measured beside what was compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from trajlm.data.store import TrajectoryStore
from trajlm.training.precision import native_cpu_bf16


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure. `ratio`: how many times better than `baseline`; None without one."""

    what: str
    ours: str
    baseline: str
    ratio: float | None


def measured_precisions() -> list[Literal["float32", "bf16"]]:
    """float32, and bf16 where the CPU multiplies it natively."""
    return ["float32", "bf16"] if native_cpu_bf16() else ["float32"]


def training(store: TrajectoryStore | None) -> list[Row]:
    """Updates a second against transformers' model, on prebuilt batches."""
    from trajlm.bench.training import training_speed

    updates, rows = 10, []
    for precision in measured_precisions():
        speed = training_speed(precision=precision, updates=updates)
        ours, theirs = (
            updates / sorted(side)[len(side) // 2] for side in (speed.ours, speed.theirs)
        )
        rows.append(
            Row(
                what=f"training, {precision}, {torch.get_num_threads()} threads",
                ours=f"{ours:.1f} updates/s",
                baseline=f"transformers {theirs:.1f} updates/s",
                ratio=speed.ratio,
            )
        )
    return rows


def learning(store: TrajectoryStore | None) -> list[Row]:
    """Mean loss of the last quarter of 2,000 updates against transformers' model, three seeds."""
    from trajlm.bench.data import noise_store
    from trajlm.bench.training import equal_learning

    rows = []
    for seed, (ours, theirs) in enumerate(equal_learning(store or noise_store(100_000))):
        rows.append(
            Row(
                what=f"learning, seed {seed}: mean loss of the last 500 of 2,000 updates",
                ours=f"{ours:.5f}",
                baseline=f"transformers {theirs:.5f}",
                ratio=theirs / ours,
            )
        )
    return rows


def evaluation(store: TrajectoryStore | None) -> list[Row]:
    """A step of 200 HalfCheetah environments at once against the tutorial's loop of one."""
    from trajlm.bench.evaluation import evaluation_speed

    rows = []
    for precision in measured_precisions():
        speed = evaluation_speed(precision=precision)
        rows.append(
            Row(
                what=f"evaluation, {precision}, {speed.slots} episodes of 1,000 steps",
                ours=f"{speed.ours:.3f} ms a step (physics {speed.our_physics:.3f})",
                baseline=f"tutorial's loop {speed.theirs:.3f} ms a step",
                ratio=speed.ratio,
            )
        )
    return rows


def data(store: TrajectoryStore | None) -> list[Row]:
    """Sampling a batch, loading a million transitions, and the command's help."""
    from trajlm.bench.data import help_seconds, loading_seconds, sampling_seconds

    sampling = sampling_seconds()
    first, cached = loading_seconds()
    return [
        Row(
            what="sampling a batch of 64 windows of 20 steps",
            ours=f"{1e3 * sampling:.2f} ms",
            baseline=f"{_share_of_update(sampling):.1%} of an update",
            ratio=None,
        ),
        Row(
            what="loading 1M transitions, first",
            ours=f"{first:.2f} s",
            baseline="5 s",
            ratio=5 / first,
        ),
        Row(
            what="loading 1M transitions, cached",
            ours=f"{cached:.2f} s",
            baseline="0.3 s",
            ratio=0.3 / cached,
        ),
        Row(what="trajlm --help", ours=f"{help_seconds():.2f} s", baseline="0.5 s", ratio=None),
    ]


def _share_of_update(sampling: float) -> float:
    from trajlm.bench.training import update_seconds

    return sampling / (sampling + update_seconds())


SUITE: dict[str, Callable[[TrajectoryStore | None], list[Row]]] = {
    "training": training,
    "evaluation": evaluation,
    "data": data,
    "learning": learning,
}
