"""Artefacts (a model one can share) and checkpoints (an artefact with the state of its training).

artefact     config.json {"format", "algorithm", "config", "spec"}, model.safetensors (weights and
             fitted buffers), README.md, eval.json where evaluated, manifest.json
checkpoint   the same, with optimizer.safetensors and trainer.json

Nothing is pickled and no file names code: the algorithm is looked up among those installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from trajlm.algorithms.base import Algorithm
from trajlm.core import discovery
from trajlm.core.config import from_mapping, to_mapping
from trajlm.core.errors import CheckpointError, StorageError
from trajlm.core.files import json_bytes, storage_errors
from trajlm.core.spec import DataSpec
from trajlm.training.card import model_card
from trajlm.training.folder import read_folder, read_json, write_folder

FORMAT = "trajlm.artefact/1"
CONFIG, WEIGHTS, OPTIMIZER, TRAINER = (
    "config.json",
    "model.safetensors",
    "optimizer.safetensors",
    "trainer.json",
)
# An upgrade takes the mapping of `config.json` in the format of its key to the next format.
UPGRADES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}


# ---- artefacts ------------------------------------------------------------------------------


def save_artefact(
    model: Algorithm,
    folder: str | Path,
    *,
    eval: Mapping[str, Any] | None = None,  # noqa: A002 (the file's name)
    overwrite: bool = False,
) -> Path:
    """Write the model as an artefact; `eval` are its results, plain JSON.

    Raises `StorageError` where the folder holds something already (unless `overwrite`).
    """
    folder = Path(folder)
    with storage_errors(folder):
        if not overwrite and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder}: exists already; choose another name or delete it")
    files = artefact_files(model)
    files["README.md"] = model_card(read_json(folder / CONFIG, files[CONFIG]), eval).encode()
    if eval is not None:
        files["eval.json"] = json_bytes(eval)
    write_folder(folder, files)
    return folder


def load_artefact(folder: str | Path, *, device: torch.device | str = "cpu") -> Algorithm:
    """The model of an artefact, a checkpoint, or a run folder (its last checkpoint), ready to act.

    Raises `CheckpointError` naming the file, key or tensor that is missing, damaged or unknown.
    """
    folder = artefact_folder(folder)
    files = read_folder(folder, unverified=(CONFIG, WEIGHTS))
    config, tensors = read_config(folder, files), _tensors(folder, WEIGHTS, files)
    model = _build(folder, config, tensors)
    load_weights(model, tensors, where=folder / WEIGHTS)
    return model.to(device).eval()


def artefact_folder(path: str | Path, *, which: str = "last") -> Path:
    """The folder itself where it is an artefact; of a run, its checkpoint `last` or `best`."""
    path = Path(path)
    if (path / CONFIG).is_file() or not (path / "checkpoints").is_dir():
        return path
    inside = path / "checkpoints" / which
    if inside.exists():
        return inside.resolve()
    steps = sorted(p for p in inside.parent.glob("step-*") if p.name[5:].isdigit())
    if which != "last" or not steps:
        raise CheckpointError(f"{inside}: the run has no such checkpoint")
    return steps[-1]


def artefact_files(model: Algorithm) -> dict[str, bytes]:
    """`config.json` and `model.safetensors` of a model, as bytes."""
    config = {
        "format": FORMAT,
        "algorithm": algorithm_name(model),
        "config": to_mapping(model.config),
        "spec": model.spec.to_json(),
    }
    # Cloned: tensors that share memory (tied weights) are refused by the format.
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    return {CONFIG: json_bytes(config), WEIGHTS: tensors_to_bytes(tensors)}


def algorithm_name(model: Algorithm) -> str:
    """The name under which the model's class is found again. Raises `CheckpointError`."""
    package = type(model).__module__.rpartition(".")[0]
    for name, entry in discovery.algorithms().items():
        if entry.package == package:
            return name
    raise CheckpointError(
        f"{type(model).__module__}: not an installed algorithm, so a checkpoint of it could not "
        f"be loaded; add an entry point in the group {discovery.ENTRY_POINT_GROUP!r}"
    )


# ---- reading --------------------------------------------------------------------------------


def read_config(folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The mapping of `config.json`, upgraded to the present format."""
    path = folder / CONFIG
    if CONFIG not in files:
        raise CheckpointError(f"{path}: missing; is this folder an artefact?")
    config = read_json(path, files[CONFIG])
    seen = set()
    while config.get("format") != FORMAT:
        found = config.get("format")
        if not isinstance(found, str) or found not in UPGRADES or found in seen:
            raise CheckpointError(
                f"{path}: format {found!r} found, {FORMAT!r} needed; "
                "load it with the version of trajlm that wrote it"
            )
        seen.add(found)
        config = UPGRADES[found](config)
    keys = {"format", "algorithm", "config", "spec"}
    if set(config) != keys:
        raise CheckpointError(
            f"{path}: unknown keys {sorted(set(config) - keys)}, missing {sorted(keys - set(config))}"
        )
    return config


def _build(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Algorithm:
    """A model from `config.json`; its weights are still to be loaded.

    Built first without memory, where shapes cost nothing: a configuration or spec that asks for
    more than the weights hold is refused before anything is allocated.
    """
    try:
        entry = discovery.algorithm(str(config["algorithm"]))
        settings = from_mapping(entry.config_module.Config, dict(config["config"]), where="config.")
        spec = DataSpec.from_json(config["spec"])
        with torch.device("meta"):
            skeleton: Algorithm = entry.algorithm_class.build(settings, spec, fitted={})
        check_tensors(skeleton.state_dict(), tensors, where=folder / WEIGHTS)
        model: Algorithm = entry.algorithm_class.build(settings, spec, fitted={})
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{folder / CONFIG}: {cause}") from error
    return model


def _tensors(folder: Path, name: str, files: Mapping[str, bytes]) -> dict[str, Tensor]:
    if name not in files:
        raise CheckpointError(f"{folder / name}: missing")
    try:
        return tensors_from_bytes(files[name])
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / name}: not a safetensors file: {error}") from None


def load_weights(model: Algorithm, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Fill the model's weights and buffers; every tensor must be there, fit, and be a number."""
    wanted = model.state_dict()
    check_tensors(wanted, tensors, where=where)
    weights = {name for name, _ in model.named_parameters()}
    for name, tensor in tensors.items():
        # A buffer may hold an infinity (an absent bound); a weight may not.
        broken = ~torch.isfinite(tensor) if name in weights else torch.isnan(tensor)
        if tensor.is_floating_point() and bool(broken.any()):
            raise CheckpointError(f"{where}: tensor {name!r} holds numbers that are not finite")
    model.load_state_dict(tensors, strict=True)


def check_tensors(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: Path
) -> None:
    """Raise `CheckpointError` listing the tensors that are missing, unknown or misshaped."""
    misfits = [
        f"{name} is {describe(found[name])}, not {describe(tensor)}"
        for name, tensor in wanted.items()
        if name in found and describe(found[name]) != describe(tensor)
    ]
    lists = {
        "missing": sorted(set(wanted) - set(found)),
        "unknown": sorted(set(found) - set(wanted)),
        "misfit": misfits,
    }
    parts = [
        f"{kind} tensors: {', '.join(names[:8])}{f' and {len(names) - 8} more' if names[8:] else ''}"
        for kind, names in lists.items()
        if names
    ]
    if parts:
        raise CheckpointError(f"{where}: {'; '.join(parts)}")


def describe(tensor: Tensor) -> str:
    """`float32[128, 64]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


# ---- the state of training ------------------------------------------------------------------


def checkpoint_files(
    model: Algorithm, optimizers: Sequence[torch.optim.Optimizer], trainer: Mapping[str, Any]
) -> dict[str, bytes]:
    """All files of a checkpoint as bytes; `trainer` is the mapping of `trainer.json`.

    A parameter belongs to one optimiser, so their states lie side by side by parameter.
    """
    moments = {p: state for optimizer in optimizers for p, state in optimizer.state.items()}
    state = {
        f"{key}/{name}": tensor.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        for key, tensor in moments.get(parameter, {}).items()
    }
    files = artefact_files(model)
    files["README.md"] = model_card(read_json(Path(CONFIG), files[CONFIG]), None).encode()
    return files | {OPTIMIZER: tensors_to_bytes(state), TRAINER: json_bytes(trainer)}


def restore_checkpoint(
    folder: Path, model: Algorithm, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Any]:
    """Fill the model and its optimisers from a checkpoint; returns the mapping of `trainer.json`.

    Raises `CheckpointError`, also where the checkpoint is of another model or other data.
    """
    files = read_folder(folder)
    ours = read_json(Path(CONFIG), artefact_files(model)[CONFIG])
    found = read_config(folder, files)
    # Facts that the version which wrote the checkpoint did not know are not differences.
    ours["spec"] = {key: value for key, value in ours["spec"].items() if key in found["spec"]}
    differing = differing_keys(found, ours)
    # Names; the data itself is known by its hash.
    differing = [key for key in differing if key not in ("spec.dataset", "spec.env_id")]
    if differing:
        raise CheckpointError(
            f"{folder / CONFIG}: differs from the run in {', '.join(differing)}; resume with the "
            "configuration and data it was started with, or start a new run"
        )
    if TRAINER not in files:
        raise CheckpointError(f"{folder / TRAINER}: missing; an artefact cannot be resumed")
    load_weights(model, _tensors(folder, WEIGHTS, files), where=folder / WEIGHTS)
    _restore_optimizers(folder / OPTIMIZER, _tensors(folder, OPTIMIZER, files), model, optimizers)
    return read_json(folder / TRAINER, files[TRAINER])


def _restore_optimizers(
    where: Path,
    tensors: Mapping[str, Tensor],
    model: Algorithm,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    owners = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    moved = [(name, p) for name, p in model.named_parameters() if p in owners]
    wanted: dict[str, Tensor] = {}
    for name, parameter in moved:
        # A parameter that no loss has reached yet has no state.
        if any(f"{key}/{name}" in tensors for key in ("step", "exp_avg", "exp_avg_sq")):
            wanted[f"step/{name}"] = torch.zeros(())
            wanted[f"exp_avg/{name}"] = wanted[f"exp_avg_sq/{name}"] = parameter
    check_tensors(wanted, tensors, where=where)
    for name, parameter in moved:
        if f"step/{name}" in tensors:
            owners[parameter].state[parameter] = {
                key: tensors[f"{key}/{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }


def differing_keys(found: Any, wanted: Any, prefix: str = "") -> list[str]:
    """The dotted keys at which two nested mappings differ."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted(set(found) | set(wanted))
        return [
            inner
            for key in keys
            for inner in differing_keys(found.get(key), wanted.get(key), f"{prefix}{key}.")
        ]
    return [] if found == wanted else [prefix.rstrip(".")]
