"""Folders in the form of Hugging Face's `transformers`: `config.json` and `model.safetensors`.

`trajlm.load` opens them beside our own. What their form has no place for (normalisation, the scale
of returns, the facts of the data) lies in their `config.json` under `trajlm`, so that a model comes
back as it went.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from trajlm.algorithms.base import Algorithm
from trajlm.convert import decision_transformer, trajectory_transformer
from trajlm.convert.form import Fitted, Form
from trajlm.convert.tensors import PICKLED, read_pickled, read_safetensors
from trajlm.core.errors import CheckpointError, DataError, StorageError, UsageError
from trajlm.core.files import json_bytes, storage_errors
from trajlm.data.load import load_dataset
from trajlm.training.checkpoint import CONFIG, WEIGHTS, algorithm_name, load_artefact
from trajlm.training.folder import read_json, write_folder

FORMS: Mapping[str, Form] = {
    form.name: form for form in (decision_transformer.FORM, trajectory_transformer.FORM)
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
    model = _form(config).read(config, _weights_of_folder(folder)).to(device)
    warn_without_statistics(model, folder)
    return model


def warn_without_statistics(model: Algorithm, source: Path) -> None:
    """Say what a model still needs before it can act."""
    if not model.spec.has_statistics:
        form = FORMS.get(algorithm_name(model))
        logger.warning(
            "%s: no %s came with these weights, so the model cannot act yet; write: "
            "trajlm convert %s --to trajlm FOLDER --data DATASET",
            source,
            form.lacks if form else "statistics",
            source,
        )


def is_foreign(folder: Path) -> bool:
    """Whether `folder` is in the form of Hugging Face's `transformers`."""
    return _foreign_config(folder) is not None


def import_model(
    source: Path,
    *,
    data: str | None = None,
    context_length: int | None = None,
    return_scale: float | None = None,
) -> Algorithm:
    """The model in a folder of theirs or in a file of weights (`.pt`, `.bin`, `.safetensors`).

    `data`: as `with_statistics` takes it; it also says what the weights' shapes do not.
    """
    options = {"context_length": context_length, "return_scale": return_scale}
    config, tensors = _opened(source)
    given = None if data is None else _given(data)
    if config is None:
        config = _recognised(tensors, source).infer(tensors, given)
    form = _form(config)
    model = form.read(config, tensors, **options)
    return model if given is None or data is None else form.fit(model, given, data)


def _opened(source: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Their configuration, where there is one, and their tensors."""
    if source.is_dir():
        config = _foreign_config(source)
        if config is None:
            raise CheckpointError(
                f"{source / CONFIG}: no 'model_type'; not a folder of transformers"
            )
        pickled = source / PICKLED_NAME
        if (source / WEIGHTS).is_file() or not pickled.is_file():
            return config, _weights_of_folder(source)
        return config, read_pickled(pickled)
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file or folder")
    tensors = read_pickled(source) if source.suffix in PICKLED else read_safetensors(source)
    return _foreign_config(source.parent), tensors


def _recognised(tensors: Mapping[str, Tensor], source: Path) -> Form:
    for form in FORMS.values():
        if form.recognises(tensors):
            return form
    known = " or ".join(f"a {form.title}" for form in FORMS.values())
    raise CheckpointError(f"{source}: these are not the weights of {known}")


def export_model(model: Algorithm, folder: Path) -> Path:
    """Write `model` as a folder that `transformers` loads. Raises `UsageError`, `StorageError`."""
    name = algorithm_name(model)
    if name not in FORMS:
        raise UsageError(f"{name} has no form in transformers; {', '.join(FORMS)} have")
    config, tensors = FORMS[name].write(model)
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
    """`model` with what it lacks to act, fitted on the dataset `source`, whose facts come with it.

    For a Decision Transformer `source` may be a JSON file {"mean": [...], "std": [...]}. Raises
    `DataError` where they do not fit the model.
    """
    name = algorithm_name(model)
    if name not in FORMS:
        raise UsageError(f"{name} keeps what it was fitted on; {', '.join(FORMS)} can be refitted")
    return FORMS[name].fit(model, _given(source), source)


def _given(source: str) -> Fitted:
    if source.endswith(".json"):
        return _read_statistics(Path(source))
    return load_dataset(source)


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


def _weights_of_folder(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            raise CheckpointError(
                f"{path}: missing; pickled weights are opened by trajlm convert alone: "
                f"trajlm convert {folder} --to trajlm FOLDER"
            )
        raise CheckpointError(f"{path}: missing")
    return read_safetensors(path)


def _form(config: Mapping[str, Any]) -> Form:
    kind = str(config.get("model_type"))
    if kind not in FORMS:
        raise CheckpointError(
            f"config.json: model_type {kind!r} cannot be converted; {', '.join(FORMS)} can"
        )
    return FORMS[kind]


def _card(model: Algorithm) -> str:
    """How to use the exported model: what the caller must do that ours does by itself."""
    name, environment = algorithm_name(model), model.spec.env_id or "environment unknown"
    return (
        "---\nlibrary_name: transformers\ntags:\n- reinforcement-learning\n- "
        f"{name.replace('_', '-')}\n---\n\n# {name}, {environment}\n\n"
        "Written by trajlm; `config.json` holds under `trajlm` what a caller needs:\n\n"
        f"{FORMS[name].card}\n`trajlm.load(FOLDER)` does all of it.\n"
    )
