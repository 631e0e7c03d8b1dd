"""What a conversion is made of, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajlm.algorithms.base import Algorithm
from trajlm.core import discovery
from trajlm.core.config import from_mapping
from trajlm.core.errors import CheckpointError, UsageError
from trajlm.core.spec import DataSpec
from trajlm.data.store import TrajectoryStore

SECTION = "trajlm"
"""The key of their `config.json` under which we keep what it has no place for."""

Fitted = TrajectoryStore | Mapping[str, np.ndarray]
"""What a model is fitted on: a dataset, or its statistics alone."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One kind of model there and here.

    `name`: their `model_type`, which for these models is our algorithm's name. `lacks`: what their
    files have not and a model needs to act. `recognises`: whether tensors by name are of this
    kind. `infer(tensors, data)`: their configuration from shapes, where none lies beside.
    `read(config, tensors, **options)`, `write(model)`: from theirs, to theirs. `fit(model, data,
    source)`: the model with what it lacked. `card`: what a caller of theirs must know.
    """

    name: str
    title: str
    lacks: str
    recognises: Callable[[Mapping[str, Tensor]], bool]
    infer: Callable[[Mapping[str, Tensor], Fitted | None], dict[str, Any]]
    read: Callable[..., Algorithm]
    write: Callable[[Algorithm], tuple[dict[str, Any], dict[str, Tensor]]]
    fit: Callable[[Algorithm, Fitted, str], Algorithm]
    card: str


def build(
    name: str,
    settings: Mapping[str, Any],
    spec: DataSpec,
    weights_of: Callable[[Any], dict[str, Tensor]],
) -> tuple[Algorithm, dict[str, Tensor]]:
    """Our model of `settings`, still with initial values, and the weights that fit it.

    `weights_of(config)` gives them under our names. Raises `CheckpointError` where they do not fit.
    """
    try:
        entry = discovery.algorithm(name)
        config = from_mapping(entry.config_module.Config, settings, where="config.")
        # Without memory first: shapes cost nothing, and a configuration may ask for anything.
        with torch.device("meta"):
            skeleton: Algorithm = entry.algorithm_class.build(config, spec, fitted={})
        weights = weights_of(config)
        refuse_misfits(skeleton.state_dict(), weights)
        model: Algorithm = entry.algorithm_class.build(config, spec, fitted={})
    except CheckpointError:
        raise
    except (UsageError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"config.json: {error}") from error
    return model, weights


def refuse_misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` where a shape does not fit or a weight is no number."""
    misfits = [
        f"{name} is {list(tensor.shape)}, not {list(wanted[name].shape)}"
        for name, tensor in found.items()
        if wanted[name].shape != tensor.shape
    ]
    broken = [f"{n} is not finite" for n, t in found.items() if not bool(torch.isfinite(t).all())]
    if misfits or broken:
        raise CheckpointError(f"weights: {'; '.join([*misfits, *broken][:5])}")


def refuse_names(missing: set[str], unknown: set[str], title: str) -> None:
    """Raise `CheckpointError` where a tensor is missing or unknown."""
    if missing or unknown:
        raise CheckpointError(
            f"weights: missing {few(missing)}, unknown {few(unknown)}; is this a {title} of this "
            "configuration?"
        )


def few(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:5]) or "none"
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Our section of their configuration."""
    found = config.get(SECTION, {})
    if not isinstance(found, Mapping):
        raise CheckpointError(f"config.json: {SECTION!r} is not a mapping")
    return found


def carried_spec(ours: Mapping[str, Any]) -> DataSpec | None:
    """The facts of the data in our section; None where there are none."""
    if "spec" not in ours:
        return None
    try:
        return DataSpec.from_json(ours["spec"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"config.json: {SECTION}.spec: {error}") from None


def count(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
        raise CheckpointError(f"config.json: {key} {value!r} is not a count")
    return value
