"""The phases of an algorithm at work: each with its optimiser, its gradient, its clipping, its rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trajlm.algorithms.base import Algorithm, Loss, Phase
from trajlm.sequence.batch import SequenceBatch
from trajlm.training.config import TrainingConfig
from trajlm.training.optim import (
    clip_in_next_step,
    gradient_norm,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from trajlm.training.precision import Precision


class Gradient(NamedTuple):
    """The loss of a phase and the norm of its gradient, which is in the parameters."""

    loss: Loss
    norm: Tensor


class Objective:
    """One phase of `model`'s updates."""

    def __init__(self, phase: Phase, model: Algorithm, config: TrainingConfig) -> None:
        self.phase, self.config = phase, config
        self.published = model.published_schedule
        self.optimizer = make_optimizer(model, config, modules=phase.modules)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def name(self) -> str:
        return self.phase.name

    def rate(self, step: int) -> float:
        """The learning rate of the update with index `step`."""
        return learning_rate(
            self.config, step, published=self.published, schedule=self.phase.schedule
        )

    def gradient(self, module: nn.Module, batch: SequenceBatch, precision: Precision) -> Gradient:
        """The loss on a batch and its gradient. `module` is the model or what it is wrapped in."""
        # What another phase's loss left in these parameters goes too.
        self.optimizer.zero_grad(set_to_none=True)
        asked = {"phase": self.name} if self.name else {}
        with precision.autocast():
            loss: Loss = module(batch, **asked)
        loss.value.backward()
        return Gradient(loss, gradient_norm(self.parameters))

    def step(self, step: int, norm: Tensor) -> None:
        """Move the parameters by the gradient that is in them, clipped, in update `step`."""
        clip_in_next_step(self.optimizer, norm, self.config.gradient_clip)
        set_learning_rate(self.optimizer, self.rate(step))
        self.optimizer.step()


def objectives_of(model: Algorithm, config: TrainingConfig) -> list[Objective]:
    """The objectives of `model`, in their order.

    Raises `ValueError` where a trained parameter belongs to none of its phases, or to several.
    """
    objectives = [Objective(phase, model, config) for phase in model.phases()]
    moved = [id(p) for objective in objectives for p in objective.parameters]
    for name, parameter in model.named_parameters():
        owners = moved.count(id(parameter)) if len(objectives) > 1 else 1
        if parameter.requires_grad and owners != 1:
            raise ValueError(f"{name} belongs to {owners} phases of {type(model).__module__}")
    return objectives


def update_metrics(
    objectives: Sequence[Objective], gradients: Sequence[Gradient]
) -> dict[str, Tensor]:
    """What is logged of an update. Several phases: the sum of their losses, the norm of all their
    gradients, and each one's own norm."""
    values = {f"train/{k}": v for found in gradients for k, v in found.loss.metrics.items()}
    if len(objectives) == 1:
        return values | {
            "train/loss": gradients[0].loss.value,
            "train/gradient_norm": gradients[0].norm,
        }
    norms = torch.stack([found.norm for found in gradients])
    losses = torch.stack([found.loss.value.detach() for found in gradients])
    each = {
        f"train/gradient_norm/{objective.name}": found.norm
        for objective, found in zip(objectives, gradients, strict=True)
    }
    return values | each | {"train/loss": losses.sum(), "train/gradient_norm": norms.norm()}


def rate_metrics(
    objectives: Sequence[Objective], config: TrainingConfig, step: int
) -> Mapping[str, float]:
    """The learning rates of the update with index `step`: the training's, and each phase's own."""
    if len(objectives) == 1:
        return {"train/learning_rate": objectives[0].rate(step)}
    each = {f"train/learning_rate/{o.name}": o.rate(step) for o in objectives}
    return {"train/learning_rate": learning_rate(config, step)} | each
