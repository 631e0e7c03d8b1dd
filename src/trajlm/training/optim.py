"""AdamW and its learning rate, which is set before each update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from trajlm.training.config import TrainingConfig


def make_optimizer(
    model: nn.Module, config: TrainingConfig, *, modules: Sequence[str] = ()
) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters, or those of the attributes `modules` alone.

    `decay="all"` decays biases and layer norms too: the published Decision Transformer hands all
    parameters to plain AdamW. `decay="linear"` spares tables too, of embeddings and of positions
    (a model's own bare parameters): the published Trajectory Transformer does.
    """
    parts = [model.get_submodule(name) for name in modules] or [model]
    trained = [p for part in parts for p in part.parameters() if p.requires_grad]
    tables = set()
    if config.decay == "linear":
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        tables |= {id(parameter) for parameter in model.parameters(recurse=False)}

    def decays(parameter: Tensor) -> bool:
        if config.decay == "all":
            return True
        return parameter.ndim >= 2 and id(parameter) not in tables

    decayed = [p for p in trained if decays(p)]
    spared = [p for p in trained if not decays(p)]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        fused=True,
    )


def learning_rate(
    config: TrainingConfig,
    step: int,
    *,
    published: bool = False,
    schedule: Literal["constant", "cosine"] | None = None,
) -> float:
    """The rate of the update with index `step` (the first is 0, at 1/warmup of the full rate).

    `schedule`: instead of the configured one.
    `published`: as the Trajectory Transformer's authors compute it: set after each update, so that
    the first has the full rate, and without an end, so that the cosine rises again.
    """
    if published and step == 0:
        return config.learning_rate
    if step < config.warmup_steps:
        # Theirs counts the updates before this one.
        return config.learning_rate * (step if published else step + 1) / config.warmup_steps
    if (schedule or config.schedule) == "constant":
        return config.learning_rate
    last = config.decay_steps or config.steps
    progress = (step - config.warmup_steps) / max(1, last - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * (progress if published else min(1.0, progress))))
    if published:  # theirs is cut off below, not stretched to end there
        return config.learning_rate * max(config.final_rate, cosine)
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


class FiniteGuard:
    """Holds back every step of the optimisers from the first whose loss or gradient is not finite.

    The flag lives on the device and fused AdamW reads it there (`found_inf`), so a GPU need not
    be waited for at each update; `bad_step` is read when something else waits for it anyway.
    """

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], *, device: torch.device
    ) -> None:
        self._bad = torch.zeros((), device=device)
        self._step = torch.full((), -1, dtype=torch.int64, device=device)
        for optimizer in optimizers:
            optimizer.found_inf = self._bad  # type: ignore[attr-defined]

    def watch(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Look at the step with index `step`, before its optimiser runs."""
        bad = ~torch.isfinite(loss.detach() + norm)
        self._step.copy_(torch.where(bad & (self._step < 0), step, self._step))
        self._bad.copy_(self._step >= 0)

    @property
    def bad_step(self) -> int | None:
        """The index of the first step held back, or None. Waits for the device."""
        step = int(self._step)
        return None if step < 0 else step


def gradient_norm(parameters: list[Tensor]) -> Tensor:
    """The global L2 norm of the gradients, on their device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return nn.utils.get_total_norm(gradients, foreach=True)


def clip_in_next_step(
    optimizer: torch.optim.Optimizer, norm: Tensor, largest: float | None
) -> None:
    """Let the next step divide the gradients so that their global norm is at most `largest`.

    Fused AdamW divides by `grad_scale` while it reads them, which saves a pass over all; the
    factor is that of `torch.nn.utils.clip_grad_norm_`.
    """
    if largest is not None:
        scale = ((norm + 1e-6) / largest).clamp_(min=1.0)
        optimizer.grad_scale = scale  # type: ignore[attr-defined]
