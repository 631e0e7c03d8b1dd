"""What a run computes on: the device and torch's threads."""

from __future__ import annotations

import torch

from trajlm.core.errors import UsageError


def set_machine(*, device: str, threads: int | None) -> str:
    """Set torch's threads where asked; the device to use."""
    if threads is not None:
        torch.set_num_threads(threads)
    return choose_device(device)


def choose_device(asked: str) -> str:
    """`auto`: a GPU where torch sees one. Raises `UsageError` for a device that is not there."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(asked).type
    except RuntimeError:
        raise UsageError(f"device: {asked!r} is none; write auto, cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: 'cuda' was asked for and torch sees no GPU; write --device cpu")
    return asked
