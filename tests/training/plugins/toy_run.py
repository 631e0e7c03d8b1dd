"""Trains the toy, in this process or in one of its own."""

from __future__ import annotations

import logging
import resource
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # what the first optimiser would import, in every forked process
from toy_algorithm.config import Config
from toy_algorithm.model import Model

from trajlm.core.errors import TrajlmError
from trajlm.core.spec import Box, DataSpec
from trajlm.sequence.batch import SequenceBatch
from trajlm.training.config import TrainingConfig
from trajlm.training.trainer import Trainer

SPEC = DataSpec(observation=Box(shape=(4,)), action=Box(shape=(2,)), horizon=3, data_hash="toy")


class ToyLoader:
    """Batches by counter; of `bad_step` with a NaN in it. `delay` seconds make updates slow."""

    def __init__(self, *, bad_step: int = -1, delay: float = 0.0) -> None:
        self.bad_step, self.delay = bad_step, delay

    def batch(self, step: int) -> SequenceBatch:
        if self.delay:
            logging.getLogger(__name__).warning("waits for batch %d", step)
            time.sleep(self.delay)
        generator = torch.Generator().manual_seed(step)
        observations = torch.randn(8, 3, 4, generator=generator)
        if step == self.bad_step:
            observations[0, 0, 0] = torch.nan
        return SequenceBatch(
            columns={"observations": observations, "actions": observations[..., :2].sin()},
            timesteps=torch.arange(3).expand(8, 3),
            mask=torch.ones(8, 3, dtype=torch.bool),
            source=torch.zeros(8, dtype=torch.int64),
        )


def toy_model(*, width: int = 16, seed: int = 0) -> Model:
    torch.default_generator.manual_seed(seed)
    return Model.build(Config(width=width), SPEC, {"mean": [0.1, 0.2, 0.3, 0.4]})


def toy_trainer(folder: Path, *, loader: ToyLoader | None = None, **facts) -> Trainer:
    """A trainer of the toy; `facts` are fields of TrainingConfig or arguments of Trainer."""
    settings = {"steps": 30, "warmup_steps": 5, "learning_rate": 0.01, "log_every": 5}
    settings |= {"validation_every": 0, "checkpoint_every": 10, "tensorboard": False}
    settings |= {"precision": "float32"}  # also where bf16 is native
    fields = TrainingConfig.__dataclass_fields__
    settings |= {name: facts.pop(name) for name in list(facts) if name in fields}
    facts.setdefault("model", toy_model())
    facts.setdefault("seed", 0)
    model = facts.pop("model")
    return Trainer(
        model,
        config=TrainingConfig(**settings),
        loader=loader or ToyLoader(),
        folder=folder,
        **facts,
    )


def run_process(folder: Path, facts: dict, stderr: Path) -> None:
    """Trains in a process of its own, resuming where there is something; ends with the error's
    exit code. `file_size_limit` stands in for a full disk."""
    sys.stderr = stderr.open("w", buffering=1)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    torch.set_num_threads(1)
    loader = ToyLoader(delay=facts.pop("delay", 0.0))
    limit = facts.pop("file_size_limit", None)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    model = toy_model(width=facts.pop("width", 16))
    resume = (folder / "checkpoints").is_dir()
    try:
        toy_trainer(folder, loader=loader, model=model, resume=resume, **facts).run()
    except TrajlmError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
