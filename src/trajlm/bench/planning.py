"""Planning speed of the Trajectory Transformer, against the published planner without a cache.

Both sides plan with the same weights, pasts and random draws. Ours is the search that policies use.
Operations of ours are those of the matrix products that PyTorch really ran in one plan, two a
multiplication and addition, counted by its `FlopCounterMode`; what norms, softmax, embeddings,
sorting and copies cost is in the time and not in the count.

Legend: N environments, L tokens of a past, D slots of a transition, S tokens of a plan.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trajlm.algorithms.trajectory_transformer.config import Config, PolicyConfig
from trajlm.algorithms.trajectory_transformer.model import Model, transition_rows
from trajlm.algorithms.trajectory_transformer.policy import TrajectoryTransformerPolicy
from trajlm.bench.published_tt import PublishedPlanner, published_twin
from trajlm.bench.timing import seconds
from trajlm.bench.training_tt import BODIES
from trajlm.core.errors import StorageError, UsageError
from trajlm.core.spec import DataSpec
from trajlm.data.store import TrajectoryStore
from trajlm.planning.beam import Draws, Plans, keyed_draws, scored_search
from trajlm.training.checkpoint import load_artefact

SETTINGS = {
    "HalfCheetah": PolicyConfig(horizon=5, beam_width=32, context=5, window="published"),
    "Hopper": PolicyConfig(horizon=15, beam_width=128, context=5, window="published"),
}
PUBLISHED_SECONDS = {"HalfCheetah": 10.2, "Hopper": 52.0}
PUBLISHED_RATE = 188.0
"""The authors' code took these seconds a plan where a product of 2048^3 ran at so many GFLOP/s."""
MEGABYTES_ALLOWED = 300.0
STATUS = Path("/proc/self/status")

Policy = TrajectoryTransformerPolicy
Kernels = Literal["torch", "compiled"]


@dataclass(frozen=True, kw_only=True)
class PlanSpeed:
    """Seconds of one plan, both sides; `operations` of ours; whether the first actions agree;
    seconds with compiled kernels, where there are any, and whether their plan is ours."""

    ours: float
    theirs: float
    operations: float
    same_action: bool
    compiled: float | None
    same_plan: bool

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours

    @property
    def rate(self) -> float:
        """GFLOP/s of ours."""
        return self.operations / self.ours / 1e9


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """What bf16 changes: the share of equal first actions, and the mean loss of score, absolute and
    as a share of the scores' deviation over states."""

    states: int
    same_actions: float
    regret: float
    relative_regret: float


# ---- models, pasts and draws --------------------------------------------------------------------


def random_policy(
    spec: DataSpec, setting: PolicyConfig, *, config: Config | None = None, seed: int = 0
) -> Policy:
    """Random weights away from their initial values, and values that rise with the bins.

    As published, stop tokens are candidates like others: both sides search among the same.
    """
    config = replace(config or Config(), fidelity="published")
    torch.manual_seed(seed)
    model = Model.build(config, spec, {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        values = model.discretizer.values
        values.copy_(torch.randn_like(values).sort(dim=1).values)
    return model.policy(setting)


def trained_policy(run: str | Path, setting: PolicyConfig) -> Policy:
    """The model of a run or an artefact. Raises `UsageError` where it cannot be compared."""
    model = load_artefact(run)
    if not isinstance(model, Model) or model.config.goal != "none":
        raise UsageError(f"{run}: expected a Trajectory Transformer without goals")
    model.config = replace(model.config, fidelity="published")
    return model.policy(setting)


def on_device(policy: Policy, device: str) -> Policy:
    """The same policy with a copy of its model on another device."""
    return replace(policy, model=copy.deepcopy(policy.model).to(device))


def random_pasts(policy: Policy, count: int, *, seed: int = 0) -> Tensor:
    """(N, L) of random tokens: as many transitions as the window keeps, and an observation."""
    model = policy.model
    length = policy.window.past * model.layout.size + model.layout.observation_size
    generator = torch.Generator().manual_seed(seed)
    pasts = torch.randint(0, model.num_bins, (count, length), generator=generator)
    return pasts.to(model.position.device)


def recorded_pasts(policy: Policy, count: int, store: TrajectoryStore) -> Tensor:
    """(N, L) from the middle of episodes of the first segment; from the same again where there
    are few."""
    model, segment, steps = policy.model, store.segments[0], policy.window.past + 1
    long = np.flatnonzero(segment.lengths >= steps)
    if len(long) == 0:
        raise UsageError(f"data: no episode of {steps} steps or more")
    chosen = np.resize(long, count)
    starts = segment.offsets[chosen] + (segment.lengths[chosen] - steps) // 2
    rows = transition_rows(model.config, model.layout, segment)[starts[:, None] + np.arange(steps)]
    tokens = model.discretizer.encode(torch.from_numpy(rows))
    return tokens.flatten(1)[:, : -(model.layout.size - model.layout.observation_size)]


def draws_of(seeds: Sequence[int], *, device: torch.device) -> Draws:
    """Draws keyed by a seed for each environment."""
    keys = np.asarray(seeds, np.int64)
    return keyed_draws(keys, np.zeros_like(keys), slots=4096, device=device)


# ---- both planners ------------------------------------------------------------------------------


@torch.inference_mode()
def our_plans(policy: Policy, pasts: Tensor, *, seeds: Sequence[int]) -> Plans:
    """The plans of N environments at once, in the precision of the policy."""
    return _search(policy, pasts, seeds=seeds)


@torch.inference_mode()
def score_of(policy: Policy, pasts: Tensor, tokens: Tensor) -> Tensor:
    """What the model says of given plans (N, S): (N,)."""
    alone = replace(policy, config=replace(policy.config, beam_width=1, num_samples=1))
    found = _search(alone, pasts, seeds=range(len(pasts)), suggestion=tokens)
    return found.scores[:, 0]


def _search(
    policy: Policy, pasts: Tensor, *, seeds: Sequence[int], suggestion: Tensor | None = None
) -> Plans:
    schedule, rest = policy.schedule
    return scored_search(
        policy.tokens(),
        pasts,
        schedule=schedule,
        rest=rest,
        horizon=policy.horizon,
        beam_width=policy.config.beam_width,
        num_samples=policy.config.num_samples,
        scorer=policy.scorer,
        draws=draws_of(seeds, device=pasts.device),
        suggestion=suggestion,
    )


def their_plan(policy: Policy, past: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """The published planner's plan (S,) of one past (1, L), and its score, by the same weights."""
    config = policy.config
    planner = PublishedPlanner(
        model=published_twin(policy.model),
        values=policy.model.discretizer.values.to(policy.model.position.dtype),
        context=policy.window.context,
        horizon=policy.horizon,
        beam_width=config.beam_width,
        num_samples=config.num_samples,
        action_cdf=config.cdf_action or 0.0,
        discount=policy.model.config.discount,
    )
    return planner.plan(past, draws_of([seed], device=past.device))


# ---- what is measured ---------------------------------------------------------------------------


def plan_speed(policy: Policy, past: Tensor, *, plans: int = 3) -> PlanSpeed:
    """The median of several plans of ours after a warm-up, and one of theirs, from one past (1, L)."""
    found: list[Tensor] = []
    theirs = seconds(lambda: found.append(their_plan(policy, past, seed=0)[0]))
    best, operations = _counted_plan(policy, past)
    actions = policy.model.layout.action_size
    other = compiled(policy)
    return PlanSpeed(
        ours=plan_seconds(policy, past, plans=plans),
        theirs=theirs,
        operations=operations,
        same_action=torch.equal(best[:actions], found[0][:actions]),
        compiled=None if other is None else plan_seconds(other, past, plans=plans),
        same_plan=other is not None
        and torch.equal(our_plans(other, past, seeds=[0]).best[0], best),
    )


@torch.no_grad()  # the counter takes apart by itself what inference mode leaves whole: slowly
def _counted_plan(policy: Policy, past: Tensor) -> tuple[Tensor, float]:
    """Our plan (S,) of one past (1, L), and the operations of its matrix products."""
    with FlopCounterMode(display=False) as counter:
        best = _search(policy, past, seeds=[0]).best[0]
    return best, float(counter.get_total_flops())


def plan_seconds(policy: Policy, pasts: Tensor, *, plans: int = 3) -> float:
    """Median seconds of planning for all N pasts at once, after a warm-up."""

    def once() -> None:
        our_plans(policy, pasts, seeds=range(len(pasts)))
        if pasts.device.type == "cuda":
            torch.cuda.synchronize()

    once()
    return median(seconds(once) for _ in range(plans))


def equal_actions(policy: Policy, pasts: Tensor) -> float:
    """The share of pasts (N, L) where both planners act alike in a search small enough for theirs."""
    small = replace(policy, config=replace(policy.config, horizon=2, beam_width=4))
    actions = policy.model.layout.action_size
    ours = our_plans(small, pasts, seeds=range(len(pasts))).best[:, :actions]
    same = [
        torch.equal(ours[n], their_plan(small, pasts[n : n + 1], seed=n)[0][:actions])
        for n in range(len(pasts))
    ]
    return sum(same) / len(same)


def compiled(policy: Policy) -> Policy | None:
    """The same policy with compiled kernels; None where nothing can be compiled."""
    other = replace(policy, config=replace(policy.config, precision="float32", kernels="compiled"))
    try:
        other.tokens()
    except (UsageError, StorageError):
        return None
    return other


def in_bf16(policy: Policy) -> Policy:
    """The same policy with products of bf16."""
    return replace(policy, config=replace(policy.config, precision="bf16", kernels="torch"))


def reduced_precision(policy: Policy, pasts: Tensor, *, batch: int = 50) -> Reduced:
    """bf16 beside float32 on the same pasts and draws; all scores are those of float32."""
    half = in_bf16(policy)
    same, full, lost = [], [], []
    actions = policy.model.layout.action_size
    for first in range(0, len(pasts), batch):
        part = pasts[first : first + batch]
        seeds = range(first, first + len(part))
        exact, rounded = (our_plans(side, part, seeds=seeds) for side in (policy, half))
        same.append((exact.best[:, :actions] == rounded.best[:, :actions]).all(dim=1))
        full.append(exact.scores[:, 0])
        lost.append(exact.scores[:, 0] - score_of(policy, part, rounded.best))
    scores, regret = torch.cat(full), float(torch.cat(lost).mean())
    deviation = float(scores.std()) if len(scores) > 1 else float("nan")
    return Reduced(
        states=len(pasts),
        same_actions=float(torch.cat(same).double().mean()),
        regret=regret,
        relative_regret=regret / deviation,
    )


def product_rate(*, size: int = 2048, runs: int = 3) -> float:
    """GFLOP/s of a square float32 product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.mm(a, b)
    return 2 * size**3 / median(seconds(lambda: torch.mm(a, b)) for _ in range(runs)) / 1e9


def expected_seconds(body: str, rate: float) -> float:
    """What the authors' code would take for a plan on a machine of `rate` GFLOP/s."""
    return PUBLISHED_SECONDS[body] * PUBLISHED_RATE / rate


def peak_megabytes(body: str, kind: Kernels = "torch") -> float | None:
    """Peak memory of one plan, its model included, above what imports take; in a process of its own.

    None where the system does not tell.
    """
    if not STATUS.exists():
        return None
    code = (
        "import sys; from trajlm.bench.planning import memory_of_a_plan; "
        f"sys.stdout.write(str(memory_of_a_plan({body!r}, {kind!r})))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    return float(found.stdout)


def memory_of_a_plan(body: str, kind: Kernels = "torch") -> float:
    """MB that this process's resident memory grows by at most while it makes a plan."""
    before = _resident("VmRSS")
    policy = random_policy(BODIES[body], replace(SETTINGS[body], kernels=kind))
    our_plans(policy, random_pasts(policy, 1), seeds=[0])
    return _resident("VmHWM") - before


def _resident(entry: Literal["VmRSS", "VmHWM"]) -> float:
    """MB, now or at most so far. `getrusage` would count what the parent held before `exec`."""
    lines = STATUS.read_text().splitlines()
    line = next(line for line in lines if line.startswith(entry))
    return float(line.split()[1]) * 1024 / 1e6
