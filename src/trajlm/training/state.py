"""`trainer.json`: what a checkpoint says of its training, and whether a run may go on from it."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import trajlm
from trajlm.core.config import to_mapping
from trajlm.core.errors import CheckpointError, UsageError
from trajlm.training.config import TrainingConfig
from trajlm.training.precision import Precision

FORMAT = "trajlm.trainer/1"
# What may change on resuming without changing what an update does.
FREE = {
    "validation_every",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "keep_last",
    "tensorboard",
    "time_limit",
    "precision",  # what was chosen is compared instead
}
logger = logging.getLogger(__name__)


def machine(precision: Precision, device: torch.device) -> dict[str, Any]:
    """What decides the last bits of an update besides the configuration."""
    return {
        "versions": {
            "trajlm": trajlm.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "precision": precision.name,
    }


def trainer_state(
    step: int, *, seed: int, config: TrainingConfig, precision: Precision, device: torch.device
) -> dict[str, Any]:
    """The mapping of `trainer.json` after `step` updates."""
    return {
        "format": FORMAT,
        "step": step,
        "seed": seed,
        "training": to_mapping(config),
        "machine": machine(precision, device),
    }


def check_state(
    state: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    where: Path,
    allow_changes: bool,
) -> int:
    """The update to go on from. `wanted` is this run's own `trainer_state`.

    Raises `CheckpointError` for another format or nonsense, `UsageError` where the seed or what an
    update does differs and changes are not allowed; another machine is warned of.
    """
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{where}: format {state.get('format')!r} found, {FORMAT!r} needed")
    step, training, before = state.get("step"), state.get("training"), state.get("machine")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CheckpointError(f"{where}: step {step!r} is not a count of updates")
    if not isinstance(training, Mapping) or not isinstance(before, Mapping):
        raise CheckpointError(f"{where}: 'training' and 'machine' must be mappings")
    ours = wanted["training"]
    steps_free = ours["schedule"] == "constant" or ours["decay_steps"] is not None
    free = FREE | ({"steps"} if steps_free else set())
    # A setting that the run's version did not know was at its default.
    theirs = {**to_mapping(TrainingConfig()), **training}
    changed = [k for k in ours if k not in free and theirs[k] != ours[k]]
    facts = [f"training.{k} (was {theirs[k]}, now {ours[k]})" for k in changed]
    if state.get("seed") != wanted["seed"]:
        facts.append(f"seed (was {state.get('seed')}, now {wanted['seed']})")
    if facts and not allow_changes:
        raise UsageError(
            f"{where.parent}: the run was started with another {', '.join(facts)}; resume it as it "
            "was, or allow the change"
        )
    differing = [k for k, v in wanted["machine"].items() if before.get(k) != v]
    if facts or differing:
        logger.warning(
            "resumed, but not bit-exact: %s differ",
            ", ".join([*facts, *(f"{k} (was {before.get(k)})" for k in differing)]),
        )
    return step
