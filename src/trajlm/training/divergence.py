"""Which numbers of an update are not finite: what is written when training diverges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trajlm.algorithms.base import Algorithm
from trajlm.sequence.batch import SequenceBatch

FILE = "diverged.json"


def diagnose(
    model: Algorithm, batch: SequenceBatch, *, loss: Tensor, norm: Tensor
) -> dict[str, Any]:
    """Plain JSON of an update whose gradients are in the model. Numbers that JSON lacks are text."""
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    norms = {name: _number(gradient.norm()) for name, gradient in gradients.items()}
    return {
        "loss": _number(loss),
        "gradient_norm": _number(norm),
        "columns_not_finite": _not_finite(batch.columns),
        "weights_not_finite": _not_finite(dict(model.named_parameters())),
        "gradients_not_finite": _not_finite(gradients),
        "columns_largest": {
            name: _number(column.abs().max())
            for name, column in batch.columns.items()
            if column.is_floating_point()
        },
        "gradient_norms": norms,
    }


def _not_finite(tensors: Any) -> list[str]:
    return [n for n, tensor in tensors.items() if not bool(torch.isfinite(tensor.detach()).all())]


def _number(value: Tensor) -> float | str:
    number = float(value.detach())
    return number if torch.isfinite(value.detach()) else str(number)
