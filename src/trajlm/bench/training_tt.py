"""Training speed of the Trajectory Transformer, against the published model in plain PyTorch.

Both sides train the published size (10 transitions, 4 layers, 4 heads, width 128, dropout 0.1) with
AdamW and clipping at 1 on the same batch of 64 windows. Ours runs the trainer's own update.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.bench.published_tt import batch_loss, published_twin
from trajlm.bench.timing import Comparison, compare
from trajlm.bench.training import BATCH_SIZE, SPEC, our_update, their_update
from trajlm.core.spec import Box, DataSpec
from trajlm.sequence.batch import SequenceBatch
from trajlm.training.config import TrainingConfig

CONFIG = Config()
BODIES = {
    "HalfCheetah": SPEC,
    "Hopper": DataSpec(
        observation=Box(shape=(11,), dtype="float64"),
        action=Box(shape=(3,), low=(-1.0,) * 3, high=(1.0,) * 3),
        horizon=1000,
    ),
}


def training_tt_speed(
    spec: DataSpec,
    *,
    config: Config = CONFIG,
    precision: Literal["float32", "bf16"] = "float32",
    batch_size: int = BATCH_SIZE,
    rounds: int = 8,
) -> tuple[Comparison, int]:
    """Seconds of one update, both sides in turn from equal weights, and the tokens of it."""
    settings = TrainingConfig(
        learning_rate=6e-4,
        weight_decay=0.1,
        decay="linear",
        betas=(0.9, 0.95),
        gradient_clip=1.0,
        precision=precision,
    )
    given = (spec, config, settings, batch_size)
    measured = compare(partial(_our_update, *given), partial(_their_update, *given), rounds=rounds)
    return measured, batch_size * Model.build(config, spec, {}).block_size


def _our_update(
    spec: DataSpec, config: Config, settings: TrainingConfig, batch_size: int
) -> Callable[[], object]:
    model, batch = _model_and_batch(spec, config, batch_size)
    return partial(our_update(model, settings), batch, 0)


def _their_update(
    spec: DataSpec, config: Config, settings: TrainingConfig, batch_size: int
) -> Callable[[], object]:
    model, batch = _model_and_batch(spec, config, batch_size)
    twin = published_twin(model)
    return partial(their_update(twin, partial(batch_loss, twin), settings), batch, 0)


def _model_and_batch(
    spec: DataSpec, config: Config, batch_size: int
) -> tuple[Model, SequenceBatch]:
    torch.manual_seed(0)
    model = Model.build(config, spec, {}).train()
    return model, token_batch(model, batch_size)


def token_batch(model: Model, batch_size: int) -> SequenceBatch:
    """Whole windows of random tokens."""
    shape = (batch_size, model.config.transitions)
    tokens = torch.randint(0, model.num_bins, (*shape, model.layout.size))
    return SequenceBatch(
        columns={"tokens": tokens, "terminals": torch.zeros(shape, dtype=torch.uint8)},
        timesteps=torch.arange(shape[1]).repeat(batch_size, 1),
        mask=torch.ones(shape, dtype=torch.bool),
        source=torch.zeros(batch_size, dtype=torch.int64),
    )
