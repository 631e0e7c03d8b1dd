"""The model that a command's FOLDER names: a run's checkpoint, or an artefact of ours or others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajlm.core.discovery import algorithm
from trajlm.core.errors import UsageError
from trajlm.evaluation.config import EvaluationConfig
from trajlm.runs.config import RunConfig, resolve
from trajlm.runs.folder import RUN_FILE, read_json, read_run

if TYPE_CHECKING:
    from trajlm.algorithms.base import Algorithm


FLAGS: list[tuple[str, Any]] = [
    ("env_id", str | None),
    ("checkpoint", str),
    ("output", str | None),
    ("guide", str | None),
    ("device", str),
    ("threads", int | None),
    ("json", bool),
    ("verbose", bool),
]
"""What every command that opens a model takes."""


def flag_defaults(base: RunConfig) -> dict[str, Any]:
    """The values of `FLAGS` where they are not given."""
    return {
        "env_id": None,
        "checkpoint": "last",
        "output": None,
        "guide": None,
        "device": base.device,
        "threads": base.threads,
        "json": False,
        "verbose": False,
    }


def configuration(folder: Path | None, *, helping: bool, usual: str, command: str) -> RunConfig:
    """The run's own, or of an artefact the defaults of its algorithm.

    `usual`: the algorithm whose flags are shown where help is asked for and no folder is named.
    """
    if folder is not None:
        name = algorithm_of_artefact(folder)
        return read_run(folder) if name is None else _defaults_of(name)
    if helping:
        return _defaults_of(usual)
    raise UsageError(f"no run; write trajlm {command} runs/NAME")


def algorithm_of_artefact(folder: Path) -> str | None:
    """The algorithm of an artefact, ours or of transformers; None for a run or a group."""
    file = folder / "config.json"
    if not file.is_file() or (folder / RUN_FILE).is_file():
        return None
    config = read_json(file)
    return str(config.get("algorithm") or config.get("model_type"))


def load_artefact(folder: Path, *, checkpoint: str, device: str) -> Algorithm:
    """The model of a folder that is no run. Raises `UsageError` for a checkpoint other than last."""
    from trajlm.convert import huggingface

    if checkpoint != "last":
        raise UsageError(f"--checkpoint: {folder} is one model, not a run")
    return huggingface.load(folder, device=device)


def beside(folder: Path, kind: str) -> Path:
    """Where results of an artefact go: FOLDER-KIND."""
    place = folder.resolve()
    return place.with_name(f"{place.name}-{kind}")


def _defaults_of(name: str) -> RunConfig:
    """A configuration of the algorithm that asks for nothing in particular."""
    entry = algorithm(name)
    config = resolve(f"{name}/{entry.recipes[0]}")
    policy = entry.config_module.PolicyConfig()
    return dataclasses.replace(config, policy=policy, evaluation=EvaluationConfig())
