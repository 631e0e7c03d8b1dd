"""Folders in the form of Hugging Face's `transformers`: `config.json` and `model.safetensors`.

`trajlm.load` opens them beside our own. What their form has no place for (normalisation, the scale
of returns, the facts of the data) lies in their `config.json` under `trajlm`, so that a model comes
back as it went.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from trajlm.algorithms.base import Algorithm
from trajlm.convert import decision_transformer
from trajlm.convert.tensors import PICKLED, read_pickled, read_safetensors
from trajlm.core.errors import CheckpointError, DataError, StorageError, UsageError
from trajlm.core.files import json_bytes, storage_errors
from trajlm.core.spec import Box, DataSpec
from trajlm.data.load import load_dataset
from trajlm.data.statistics import fitted_statistics
from trajlm.training.checkpoint import CONFIG, WEIGHTS, algorithm_name, load_artefact
from trajlm.training.folder import read_json, write_folder

# By `model_type` of their configuration, which for these models is our algorithm's name.
IMPORTERS: Mapping[str, Callable[..., Algorithm]] = {
    decision_transformer.NAME: decision_transformer.from_huggingface
}
EXPORTERS: Mapping[str, Callable[[Algorithm], tuple[dict[str, Any], dict[str, Tensor]]]] = {
    decision_transformer.NAME: decision_transformer.to_huggingface
}
PICKLED_NAME = "pytorch_model.bin"

logger = logging.getLogger(__name__)


def load(folder: str | Path, *, device: torch.device | str = "cpu") -> Algorithm:
    """The model in `folder`: an artefact, a checkpoint, a run (its last checkpoint), or a folder in
    the form of Hugging Face's `transformers`; ready to act.

    Raises `CheckpointError` naming the file, key or tensor that is missing, damaged or unknown.
    """
    folder = Path(folder)
    config = _foreign_config(folder)
    if config is None:
        return load_artefact(folder, device=device)
    model = _load_foreign(folder, config).to(device)
    warn_without_statistics(model, folder)
    return model


def warn_without_statistics(model: Algorithm, source: Path) -> None:
    """Say what a model still needs before it can act."""
    if not model.spec.has_statistics:
        logger.warning(
            "%s: no state statistics came with these weights, so the model cannot act yet; write: "
            "trajlm convert %s --to trajlm FOLDER --statistics-from DATASET",
            source,
            source,
        )


def is_foreign(folder: Path) -> bool:
    """Whether `folder` is in the form of Hugging Face's `transformers`."""
    return _foreign_config(folder) is not None


def import_model(
    source: Path, *, context_length: int | None = None, return_scale: float | None = None
) -> Algorithm:
    """The model in a folder of theirs or in a file of weights (`.pt`, `.bin`, `.safetensors`)."""
    options = {"context_length": context_length, "return_scale": return_scale}
    if source.is_dir():
        config = _foreign_config(source)
        if config is None:
            raise CheckpointError(
                f"{source / CONFIG}: no 'model_type'; not a folder of transformers"
            )
        pickled = source / PICKLED_NAME
        if (source / WEIGHTS).is_file() or not pickled.is_file():
            return _load_foreign(source, config, **options)
        return _importer(config)(config, read_pickled(pickled), **options)
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file or folder")
    tensors = read_pickled(source) if source.suffix in PICKLED else read_safetensors(source)
    beside = source.parent / CONFIG
    config = _foreign_config(source.parent) if beside.is_file() else None
    config = config or decision_transformer.infer_config(tensors)
    return _importer(config)(config, tensors, **options)


def export_model(model: Algorithm, folder: Path) -> Path:
    """Write `model` as a folder that `transformers` loads. Raises `UsageError`, `StorageError`."""
    name = algorithm_name(model)
    if name not in EXPORTERS:
        known = ", ".join(EXPORTERS)
        raise UsageError(f"{name} has no form in transformers; {known} has")
    config, tensors = EXPORTERS[name](model)
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder}: exists already; choose another name or delete it")
    files = {
        CONFIG: json_bytes(config),
        # transformers reads the format of the tensors from here.
        WEIGHTS: tensors_to_bytes(tensors, metadata={"format": "pt"}),
        "README.md": _card(model).encode(),
    }
    write_folder(folder, files)
    return folder


def with_statistics(model: Algorithm, source: str) -> Algorithm:
    """`model` with the state statistics of a dataset, or of a JSON file {"mean": [...], "std": [...]}.

    A dataset's facts (environment, returns) come with it. Raises `DataError` where they do
    not fit the model.
    """
    spec = model.spec
    if source.endswith(".json"):
        fitted, spec = _read_statistics(Path(source)), replace(spec, has_statistics=True)
    else:
        store = load_dataset(source)
        known = store.spec
        for name in ("observation", "action"):
            ours, theirs = getattr(spec, name), getattr(known, name)
            if not isinstance(theirs, Box) or ours.shape != theirs.shape:
                raise DataError(f"{source}: its {name}s are {theirs}, the model's are {ours}")
        fitted = fitted_statistics(store)
        # The head and the scale of past actions are the model's own, whatever the data's bounds.
        facts = _facts_of(known, horizon=spec.horizon, source=source)
        spec = replace(facts, action=spec.action)
    size = spec.observation.size if isinstance(spec.observation, Box) else 0
    for key in ("mean", "std"):
        given = np.asarray(fitted[f"observations/{key}"])
        if (
            given.shape != (size,)
            or not np.isfinite(given).all()
            or (key == "std" and (given < 0).any())
        ):
            raise DataError(f"{source}: {key}: expected {size} finite numbers, no std below 0")
    rebuilt: Algorithm = type(model).build(model.config, spec, fitted)
    fresh = rebuilt.state_dict()
    # Statistics are the data's, everything else the model's.
    kept = {n: t for n, t in model.state_dict().items() if ".normalizer." not in n}
    rebuilt.load_state_dict({**fresh, **kept}, strict=True)
    return rebuilt.eval()


def _facts_of(known: DataSpec, *, horizon: int, source: str) -> DataSpec:
    if known.horizon > horizon:
        raise DataError(
            f"{source}: its longest episode has {known.horizon} steps, the model knows {horizon}"
        )
    return replace(known, horizon=horizon)


def _read_statistics(path: Path) -> dict[str, np.ndarray]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            f"observations/{key}": np.asarray(found[key], np.float64) for key in ("mean", "std")
        }
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: expected {{"mean": [...], "std": [...]}} ({error})') from None


def _foreign_config(folder: Path) -> dict[str, Any] | None:
    """Their `config.json`; None where the folder is none of theirs."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        config = read_json(path, path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    return config if "model_type" in config and "format" not in config else None


def _load_foreign(folder: Path, config: Mapping[str, Any], **options: Any) -> Algorithm:
    path = folder / WEIGHTS
    if not path.is_file():
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            raise CheckpointError(
                f"{path}: missing; pickled weights are opened by trajlm convert alone: "
                f"trajlm convert {folder} --to trajlm FOLDER"
            )
        raise CheckpointError(f"{path}: missing")
    return _importer(config)(config, read_safetensors(path), **options)


def _importer(config: Mapping[str, Any]) -> Callable[..., Algorithm]:
    kind = str(config.get("model_type"))
    if kind not in IMPORTERS:
        raise CheckpointError(
            f"config.json: model_type {kind!r} cannot be converted; {', '.join(IMPORTERS)} can"
        )
    return IMPORTERS[kind]


def _card(model: Algorithm) -> str:
    """How to use the exported model: what the caller must do that ours does by itself."""
    spec = model.spec
    return (
        "---\nlibrary_name: transformers\ntags:\n- reinforcement-learning\n- "
        f"{algorithm_name(model).replace('_', '-')}\n---\n\n"
        f"# {algorithm_name(model)}, {spec.env_id or 'environment unknown'}\n\n"
        "Written by trajlm; `config.json` holds under `trajlm` what a caller needs:\n\n"
        "- states go in as `(state - state_mean) / state_std`, normalised before padding;\n"
        "- returns-to-go are divided by `return_scale`;\n"
        "- the last `config.context_length` steps are seen;\n"
        "- actions come out in [-1, 1]: map them to the bounds in `spec.action`.\n\n"
        "`trajlm.load(FOLDER)` does all of it.\n"
    )
