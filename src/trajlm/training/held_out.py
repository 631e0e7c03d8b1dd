"""The loss on steps that were not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from trajlm.core.seeding import derive
from trajlm.sequence.batch import SequenceBatch
from trajlm.training.precision import Precision

VALIDATION_STREAM = -1


def held_out_loss(
    model: nn.Module,
    batches: Iterable[SequenceBatch],
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
) -> float | None:
    """The mean loss over the real steps of `batches`; None where there are none."""
    means = held_out_metrics(model, batches, seed=seed, device=device, precision=precision)
    return means.get("loss")


def held_out_metrics(
    model: nn.Module,
    batches: Iterable[SequenceBatch],
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
) -> dict[str, float]:
    """The loss and the model's other metrics, means over the real steps of `batches`; empty where
    there are none.

    `model` is in evaluation mode already. Models that draw while they score do so alike each time.
    """
    names: list[str] = []
    rows, steps = [], []
    with torch.no_grad():
        for index, batch in enumerate(batches):
            on_device = batch.to(device)
            seed_generators(derive(seed, VALIDATION_STREAM, index), device)
            with precision.autocast():
                loss = model(on_device)
            measured = {**loss.metrics, "loss": loss.value}
            names = list(measured)
            rows.append(torch.stack([value.float() for value in measured.values()]))
            steps.append(on_device.mask.sum())
    if not rows:
        return {}
    weights = torch.stack(steps).float()
    means = (torch.stack(rows) * weights[:, None]).sum(0) / weights.sum()
    return dict(zip(names, means.tolist(), strict=True))


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators an update draws from: `torch.manual_seed` without its 0.2 ms of looking
    for devices."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
