"""The benchmarks by name: each gives rows of what was measured beside what was compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import torch

from trajlm.data.store import TrajectoryStore
from trajlm.training.precision import native_cpu_bf16

if TYPE_CHECKING:
    from trajlm.bench.planning import PlanSpeed, Policy


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the caller brings: a dataset, and a run of a Trajectory Transformer."""

    store: TrajectoryStore | None = None
    run: Path | None = None


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


def training(given: Given) -> list[Row]:
    """Updates a second against transformers' model, on prebuilt batches."""
    from trajlm.bench.training import training_speed

    updates, rows = 10, []
    for precision in measured_precisions():
        speed = training_speed(precision=precision, updates=updates)
        ours, theirs = (updates / median(side) for side in (speed.ours, speed.theirs))
        rows.append(
            Row(
                what=f"training, {precision}, {torch.get_num_threads()} threads",
                ours=f"{ours:.1f} updates/s",
                baseline=f"transformers {theirs:.1f} updates/s",
                ratio=speed.ratio,
            )
        )
    return rows


def learning(given: Given) -> list[Row]:
    """Mean loss of the last quarter of 2,000 updates against transformers' model, three seeds."""
    from trajlm.bench.data import noise_store
    from trajlm.bench.training import equal_learning

    rows = []
    for seed, (ours, theirs) in enumerate(equal_learning(given.store or noise_store(100_000))):
        rows.append(
            Row(
                what=f"learning, seed {seed}: mean loss of the last 500 of 2,000 updates",
                ours=f"{ours:.5f}",
                baseline=f"transformers {theirs:.5f}",
                ratio=theirs / ours,
            )
        )
    return rows


def evaluation(given: Given) -> list[Row]:
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


def data(given: Given) -> list[Row]:
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


def training_tt(given: Given) -> list[Row]:
    """Tokens a second of the Trajectory Transformer against the published model."""
    from trajlm.bench.training_tt import BODIES, training_tt_speed

    rows = []
    for precision in measured_precisions():
        for body, spec in BODIES.items():
            speed, tokens = training_tt_speed(spec, precision=precision)
            ours, theirs = (tokens / median(side) for side in (speed.ours, speed.theirs))
            rows.append(
                Row(
                    what=f"training-tt, {body}, {precision}, {torch.get_num_threads()} threads",
                    ours=f"{ours:,.0f} tokens/s",
                    baseline=f"published code, float32 {theirs:,.0f} tokens/s",
                    ratio=speed.ratio,
                )
            )
    return rows


def plan(given: Given) -> list[Row]:
    """A plan of the Trajectory Transformer against the published planner without a cache."""
    from trajlm.bench.planning import (
        SETTINGS,
        compiled,
        product_rate,
        random_policy,
        trained_policy,
    )
    from trajlm.bench.training_tt import BODIES

    trained = None if given.run is None else trained_policy(given.run, SETTINGS["HalfCheetah"])
    rate = product_rate()
    policies = {body: random_policy(BODIES[body], setting) for body, setting in SETTINGS.items()}
    rows = []
    for body, policy in policies.items():
        rows += _plan_rows(body, policy, given, rate=rate)
    other = compiled(policies["HalfCheetah"])
    rows.append(_together_row(policies["HalfCheetah"]))
    rows += [] if other is None else [_together_row(other, name=", compiled")]
    rows += _memory_rows(with_compiled=other is not None)
    if trained is not None:
        rows += _plan_rows(f"weights of {given.run}", trained, given)
    if "bf16" in measured_precisions():
        rows += [_bf16_speed_row(body, policy) for body, policy in policies.items()]
        rows.append(_bf16_row(policies["HalfCheetah"]))
    if torch.cuda.is_available():
        for body, policy in policies.items():
            rows += _cuda_rows(body, policy)
    return rows


def _plan_rows(body: str, policy: Policy, given: Given, *, rate: float | None = None) -> list[Row]:
    """One plan of both sides; with the machine's `rate` also what the authors' code would take."""
    from trajlm.bench import planning

    states, config = 8, policy.config
    trained = rate is None
    if trained and given.store is not None:
        pasts = planning.recorded_pasts(policy, states, given.store)
    else:
        pasts = planning.random_pasts(policy, states)
    speed = planning.plan_speed(policy, pasts[:1])
    name = f"plan, {body}"
    what = f"{name}, horizon {config.horizon}, beam {config.beam_width}, one environment"
    ours = f"{1e3 * speed.ours:,.0f} ms"
    same = "same first action" if speed.same_action else "another first action"
    published = f"published, uncached {1e3 * speed.theirs:,.0f} ms"
    rows = [
        Row(
            what=what,
            ours=f"{ours} ({speed.rate:.0f} GFLOP/s of {speed.operations / 1e9:.1f} GFLOP)",
            baseline=f"{published}, {same}",
            ratio=speed.ratio,
        ),
        *_compiled_row(name, speed, published, speed.theirs),
        Row(
            what=f"{name}, {states} small searches: equal first actions",
            ours=f"{planning.equal_actions(policy, pasts):.0%}",
            baseline="published, uncached",
            ratio=None,
        ),
    ]
    if rate is not None:
        expected = planning.expected_seconds(body, rate)
        name = (
            f"{name}, the authors' {planning.PUBLISHED_SECONDS[body]:.1f} s scaled from "
            f"{planning.PUBLISHED_RATE:.0f} to {rate:.0f} GFLOP/s (product of 2048^3)"
        )
        baseline = f"expected {1e3 * expected:,.0f} ms"
        rows += [
            Row(what=name, ours=ours, baseline=baseline, ratio=expected / speed.ours),
            *_compiled_row(name, speed, baseline, expected),
        ]
    return rows


def _compiled_row(name: str, speed: PlanSpeed, baseline: str, seconds: float) -> list[Row]:
    """None where nothing can be compiled."""
    if speed.compiled is None:
        return []
    ours = f"{1e3 * speed.compiled:,.0f} ms, {'the same' if speed.same_plan else 'another'} plan"
    ratio = seconds / speed.compiled
    return [Row(what=f"{name}, compiled", ours=ours, baseline=baseline, ratio=ratio)]


def _together_row(policy: Policy, *, environments: int = 16, name: str = "") -> Row:
    from trajlm.bench.planning import plan_seconds, random_pasts

    pasts = random_pasts(policy, environments)
    alone = plan_seconds(policy, pasts[:1])
    together = plan_seconds(policy, pasts) / environments
    return Row(
        what=f"plan, HalfCheetah, {environments} environments at once{name}",
        ours=f"{1e3 * together:,.0f} ms a plan",
        baseline=f"one alone {1e3 * alone:,.0f} ms",
        ratio=alone / together,
    )


def _memory_rows(*, with_compiled: bool) -> list[Row]:
    """None where the system does not tell."""
    from trajlm.bench.planning import MEGABYTES_ALLOWED, peak_megabytes

    used = {"": peak_megabytes("Hopper")}
    if with_compiled:
        used[", compiled"] = peak_megabytes("Hopper", "compiled")
    return [
        Row(
            what=f"plan, Hopper, peak memory above imports{name}",
            ours=f"{megabytes:.0f} MB",
            baseline=f"{MEGABYTES_ALLOWED:.0f} MB",
            ratio=MEGABYTES_ALLOWED / megabytes,
        )
        for name, megabytes in used.items()
        if megabytes is not None
    ]


def _bf16_speed_row(body: str, policy: Policy) -> Row:
    from trajlm.bench.planning import in_bf16, plan_seconds, random_pasts

    past = random_pasts(policy, 1)
    full, half = plan_seconds(policy, past), plan_seconds(in_bf16(policy), past)
    return Row(
        what=f"plan, {body}, bf16",
        ours=f"{1e3 * half:,.0f} ms",
        baseline=f"float32 {1e3 * full:,.0f} ms",
        ratio=full / half,
    )


def _bf16_row(policy: Policy, *, states: int = 500) -> Row:
    from trajlm.bench.planning import random_pasts, reduced_precision

    found = reduced_precision(policy, random_pasts(policy, states))
    return Row(
        what=f"plan, HalfCheetah, bf16, {states} states: equal first actions",
        ours=f"{found.same_actions:.1%}",
        baseline=f"float32; its score less {found.regret:.4f} ({found.relative_regret:.2%} of the "
        "deviation over states)",
        ratio=None,
    )


def _cuda_rows(body: str, policy: Policy) -> list[Row]:
    """On the GPU: one environment, and 64 at once."""
    from trajlm.bench.planning import on_device, plan_seconds, random_pasts

    there = on_device(policy, "cuda")
    return [
        Row(
            what=f"plan, {body}, {torch.cuda.get_device_name()}, {count} environments",
            ours=f"{1e3 * plan_seconds(there, random_pasts(there, count)) / count:,.1f} ms a plan",
            baseline="",
            ratio=None,
        )
        for count in (1, 64)
    ]


SUITE: dict[str, Callable[[Given], list[Row]]] = {
    "training": training,
    "evaluation": evaluation,
    "data": data,
    "training-tt": training_tt,
    "plan": plan,
    "learning": learning,
}
