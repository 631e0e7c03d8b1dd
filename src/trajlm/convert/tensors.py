"""Weights in files of other projects, read without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from torch import Tensor

from trajlm.core.errors import CheckpointError

PICKLED = (".pt", ".bin", ".pth")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `CheckpointError`."""
    try:
        return tensors_from_bytes(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from None


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` or `.bin` file, by torch's reader that knows tensors alone.

    A file that asks for anything else to be built is refused: it is never unpickled another way.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a stranger's file may make the reader fail in any way
        cause = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors, and is not opened another way ({cause}); "
            "save the model's state_dict() alone, as safetensors best of all"
        ) from None
    if isinstance(found, dict) and set(found) == {"state_dict"}:
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{path}: expected tensors by name, found {type(found).__name__}")
    odd = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(f"{path}: not a tensor: {', '.join(odd[:5])}")
    return {str(name): tensor.contiguous() for name, tensor in found.items()}
