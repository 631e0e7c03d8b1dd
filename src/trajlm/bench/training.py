"""Training speed and learning, against `transformers`' DecisionTransformerModel.

Both sides train the published model (batch 64, K 20, 3 layers of width 128, dropout 0.1) with
AdamW and clipping at 0.25 on the same batches. Ours runs the trainer's own update.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.algorithms.base import Algorithm
from trajlm.algorithms.decision_transformer.config import Config
from trajlm.algorithms.decision_transformer.model import Model
from trajlm.bench.baselines import transformers_loss, transformers_model
from trajlm.bench.timing import Comparison, compare, seconds
from trajlm.core.machine import keep_memory
from trajlm.core.seeding import derive
from trajlm.core.spec import Box, DataSpec
from trajlm.data.store import TrajectoryStore
from trajlm.nn.normalizer import Normalizer
from trajlm.sequence.batch import SequenceBatch
from trajlm.sequence.loader import Loader
from trajlm.training.config import TrainingConfig
from trajlm.training.optim import (
    clip_in_next_step,
    gradient_norm,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from trajlm.training.precision import choose_precision

BATCH_SIZE, RETURN_SCALE = 64, 1000.0
CONFIG = Config(return_scale=RETURN_SCALE)
SPEC = DataSpec(
    observation=Box(shape=(17,), dtype="float64"),
    action=Box(shape=(6,), low=(-1.0,) * 6, high=(1.0,) * 6),
    horizon=1000,
)
"""HalfCheetah's shapes."""
Update = Callable[[SequenceBatch, int], Tensor]


def our_update(model: Algorithm, config: TrainingConfig) -> Update:
    """An update as the trainer makes it; gives the loss."""
    keep_memory()
    optimizer = make_optimizer(model, config)
    parameters: list[Tensor] = list(model.parameters())
    precision = choose_precision(config.precision)

    def update(batch: SequenceBatch, step: int) -> Tensor:
        torch.manual_seed(derive(0, step))
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            loss: Tensor = model(batch).value
        loss.backward()
        clip_in_next_step(optimizer, gradient_norm(parameters), config.gradient_clip)
        set_learning_rate(optimizer, learning_rate(config, step))
        optimizer.step()
        return loss.detach()

    return update


def their_update(
    model: nn.Module, loss_of: Callable[[SequenceBatch], Tensor], config: TrainingConfig
) -> Update:
    """An update of plain AdamW, as public training code makes it; gives the loss."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
    )

    def update(batch: SequenceBatch, step: int) -> Tensor:
        set_learning_rate(optimizer, learning_rate(config, step))
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        if config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimizer.step()
        return loss.detach()

    return update


def _transformers_update(model: nn.Module, config: TrainingConfig) -> Update:
    return their_update(
        model, lambda batch: transformers_loss(model, batch, return_scale=RETURN_SCALE), config
    )


def training_speed(
    *, precision: Literal["float32", "bf16"] = "float32", rounds: int = 5, updates: int = 10
) -> Comparison:
    """Seconds of `updates` updates on prebuilt batches of HalfCheetah's size, both sides in turn."""
    config = TrainingConfig(precision=precision)
    return compare(
        partial(_our_updates, config, updates),
        partial(_their_updates, config, updates),
        rounds=rounds,
    )


def _our_updates(config: TrainingConfig, updates: int) -> Callable[[], object]:
    batches = _batches(updates)
    ours = our_update(Model.build(CONFIG, SPEC, {}).train(), config)
    return lambda: [ours(batch, step) for step, batch in enumerate(batches)]


def _their_updates(config: TrainingConfig, updates: int) -> Callable[[], object]:
    batches = _batches(updates)
    model = transformers_model(observation_size=17, action_size=6, horizon=1000).train()
    theirs = _transformers_update(model, config)
    return lambda: [theirs(batch, step) for step, batch in enumerate(batches)]


def _batches(count: int) -> list[SequenceBatch]:
    torch.manual_seed(0)
    return [random_batch(SPEC) for _ in range(count)]


def update_seconds(*, updates: int = 10) -> float:
    """Median seconds of one of our updates in float32."""
    torch.manual_seed(0)
    batch = random_batch(SPEC)
    model = Model.build(CONFIG, SPEC, {}).train()
    update = our_update(model, TrainingConfig(precision="float32"))
    update(batch, 0)
    return statistics.median(
        seconds(lambda step=step: update(batch, step))  # type: ignore[misc]
        for step in range(1, updates + 1)
    )


def random_batch(spec: DataSpec) -> SequenceBatch:
    """A full batch of noise in the spec's shapes."""
    shape = (BATCH_SIZE, CONFIG.context_length)
    return SequenceBatch(
        columns={
            "observations": torch.randn(*shape, *spec.observation.shape),  # type: ignore[union-attr]
            "actions": torch.rand(*shape, *spec.action.shape) * 2 - 1,  # type: ignore[union-attr]
            "returns_to_go": torch.rand(shape) * 5000,
        },
        timesteps=torch.randint(0, spec.horizon, (BATCH_SIZE, 1)).expand(shape).contiguous(),
        mask=torch.ones(shape, dtype=torch.bool),
        source=torch.zeros(BATCH_SIZE, dtype=torch.int64),
    )


def equal_learning(
    store: TrajectoryStore, *, seeds: Sequence[int] = (0, 1, 2), updates: int = 2_000
) -> list[tuple[float, float]]:
    """Mean training loss of the last quarter of the updates, (ours, theirs), for each seed.

    Constant rate of 1e-4 after 100 updates of warm-up, the same batches on both sides.
    """
    results = []
    prepared = Model.prepare(CONFIG, store)
    spec = prepared.store.spec
    for seed in seeds:
        torch.manual_seed(seed)
        model = Model.build(CONFIG, spec, prepared.fitted).train()
        baseline = transformers_model(
            observation_size=cast(Box, spec.observation).size,
            action_size=cast(Box, spec.action).size,
            horizon=spec.horizon,
        ).train()
        config = TrainingConfig(warmup_steps=100, steps=updates, precision="float32")
        loader = Loader(
            prepared.store, Model.windows(CONFIG, spec), batch_size=BATCH_SIZE, seed=seed
        )
        ours, theirs = our_update(model, config), _transformers_update(baseline, config)
        losses = np.zeros((updates, 2))
        for step in range(updates):
            batch = loader.batch(step)
            losses[step, 0] = ours(batch, step).item()
            losses[step, 1] = theirs(normalized(batch, model), step).item()
        mine, other = losses[-(updates // 4) :].mean(0)
        results.append((float(mine), float(other)))
    return results


def normalized(batch: SequenceBatch, model: Model) -> SequenceBatch:
    """The batch with normalised states, as the published code prepares them."""
    normalize = cast(Normalizer, model.embed_observation.normalizer)
    states = normalize(batch.columns["observations"])
    return replace(batch, columns={**batch.columns, "observations": states})
