"""What a run will cost, before it is started: a few updates of it, timed."""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from trajlm.core.config import to_mapping
from trajlm.data.store import TrajectoryStore
from trajlm.runs.assembly import Assembly, assemble, examine, load_store
from trajlm.runs.config import RunConfig
from trajlm.runs.machine import set_machine
from trajlm.training.metrics import Metrics
from trajlm.training.trainer import Trainer

WARM_UP_UPDATES = 3
# Enough for seconds of work: shorter bursts look faster than a busy machine goes on being.
TIMED_UPDATES = 40
SECONDS_AT_MOST = 8.0


def estimate(config: RunConfig, *, store: TrajectoryStore | None = None) -> dict[str, Any]:
    """Parameters, floating-point operations, measured updates/s and the training's seconds.

    Plain JSON. Nothing is written outside a temporary folder; the run is not started.
    """
    device = set_machine(device=config.device, threads=config.threads)
    store = load_store(config, store)
    examine(store, config)
    assembly = assemble(config, store)
    rate, precision = update_rate(config, assembly, device=device)
    return {
        "config": to_mapping(config),
        "parameters": sum(parameter.numel() for parameter in assembly.model.parameters()),
        "flops_per_update": assembly.model.flops_per_step(config.training.batch_size),
        "precision": precision,
        "updates_per_s": rate,
        "seconds": config.training.steps / rate,
    }


def update_rate(config: RunConfig, assembly: Assembly, *, device: str) -> tuple[float, str]:
    """Updates a second by the trainer itself, and the precision it chose with its reason.

    Trains the assembly's model by a few updates: hand it one that is not used afterwards.
    """
    quick = replace(
        config.training,
        checkpoint_every=0,
        validation_every=0,
        evaluate_every=0,
        tensorboard=False,
        time_limit=SECONDS_AT_MOST,
    )
    logger = logging.getLogger("trajlm.training")
    level = logger.level
    logger.setLevel(logging.ERROR)
    rate, precision = math.nan, ""
    try:
        for updates in (WARM_UP_UPDATES, TIMED_UPDATES):
            with tempfile.TemporaryDirectory(prefix="trajlm-") as folder:
                training = replace(quick, steps=updates)
                trainer = Trainer(
                    assembly.model,
                    config=training,
                    loader=assembly.loader,
                    folder=Path(folder),
                    seed=config.seed,
                    device=device,
                    reporter=Metrics(Path(folder), total_steps=updates, progress=False),
                )
                rate, precision = trainer.run().updates_per_s, str(trainer.precision)
    finally:
        logger.setLevel(level)
    return rate, precision
