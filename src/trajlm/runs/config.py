"""What a run is made of, torch-free: recipe + file + overrides, resolved and checked.

`run.yaml` in a run's folder is the resolved configuration and itself a recipe: it names its
algorithm and every value, so `trajlm train runs/NAME/run.yaml` repeats the run. A file of one's
own may instead say `extends: ALGORITHM/RECIPE` and hold the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from trajlm.core.config import from_mapping, merge, read_yaml, to_mapping
from trajlm.core.discovery import AlgorithmEntry, algorithm, find_recipe
from trajlm.core.errors import UsageError, suggestion
from trajlm.evaluation.config import EvaluationConfig
from trajlm.training.config import TrainingConfig

RECIPE_SUFFIXES = (".yaml", ".yml")
RESUMABLE = (
    *("device", "threads", "data.", "evaluation.", "policy."),
    *(f"training.{name}_every" for name in ("log", "validation", "evaluate", "checkpoint")),
    *("training.keep_last", "training.tensorboard", "training.time_limit"),
)
"""Beginnings of the keys that a resumed run may change: its updates stay as they were."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which dataset, and what is known about it that its file does not say."""

    path: str = ""
    """A file (D4RL or Minari HDF5, NPZ), minari:ID or synthetic:NAME."""
    env_id: str | None = None
    """Environment to evaluate in, where the dataset does not name it."""
    on_bad: Literal["refuse", "drop-episode"] = "refuse"
    """What to do with episodes that hold NaN or whose columns disagree."""
    reward: Literal["recorded", "delayed"] = "recorded"
    """delayed: all of an episode's reward is moved to its last step."""
    reward_scale: float = 1.0
    """What the environment's rewards were multiplied by when they were recorded."""

    def __post_init__(self) -> None:
        if not 0.0 < self.reward_scale < float("inf"):
            raise UsageError(f"reward_scale: {self.reward_scale} is not positive and finite")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A resolved run. `model` and `policy` are the algorithm's `Config` and `PolicyConfig`."""

    recipe: str
    algorithm: str
    model: Any
    policy: Any
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads: {self.threads} is below 1")

    @property
    def entry(self) -> AlgorithmEntry:
        """The algorithm's folder, classes and recipes."""
        return algorithm(self.algorithm)

    @property
    def target_returns(self) -> tuple[float | str | None, ...]:
        """The returns to evaluate at, by number or name: the policy's, or one slot that is asked
        for nothing."""
        asked = getattr(self.policy, "target_return", None)
        return tuple(asked) if asked else (None,)

    def to_yaml(self) -> str:
        """The text of `run.yaml`, which `resolve` reads back to an equal configuration."""
        return yaml.safe_dump(to_mapping(self), sort_keys=False, allow_unicode=True)


def resolve(reference: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The run that `reference` describes, with `overrides` (nested mapping) laid over it.

    `reference` is `ALGORITHM/RECIPE` or the path of a YAML file. Raises `UsageError` naming an
    unknown recipe, key or value, with the nearest known one.
    """
    if reference.endswith(RECIPE_SUFFIXES):
        mapping = _read_run_file(Path(reference))
    else:
        entry, mapping = find_recipe(reference)
        mapping = {"recipe": reference, "algorithm": entry.name, **mapping}
    return from_run_mapping(merge(mapping, overrides or {}))


def from_run_mapping(mapping: Mapping[str, Any]) -> RunConfig:
    """A `RunConfig` from plain data; its `model` and `policy` are typed by the algorithm."""
    if "algorithm" not in mapping:
        raise UsageError("configuration key 'algorithm' is required (or 'extends: NAME/RECIPE')")
    module = algorithm(str(mapping["algorithm"])).config_module
    sections = {
        "model": from_mapping(module.Config, _section(mapping, "model"), where="model."),
        "policy": from_mapping(module.PolicyConfig, _section(mapping, "policy"), where="policy."),
    }
    rest = {key: value for key, value in mapping.items() if key not in sections}
    known = RunConfig.__dataclass_fields__
    for key in rest:
        if key not in known:
            raise UsageError(f"unknown configuration key {key!r}{suggestion(str(key), known)}")
    # `model` and `policy` are of type Any in RunConfig, so ready dataclasses pass through.
    return from_mapping(RunConfig, {"recipe": rest["algorithm"], **rest, **sections})


def changed_keys(old: RunConfig, new: RunConfig) -> list[str]:
    """Dotted keys whose values differ between two configurations."""
    return _differences(to_mapping(old), to_mapping(new))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    changed: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key}")
    return changed


def _read_run_file(path: Path) -> dict[str, Any]:
    mapping = read_yaml(path)
    base = mapping.pop("extends", None)
    if base is None:
        return {"recipe": path.stem, **mapping}
    entry, inherited = find_recipe(str(base))
    known = {"recipe": str(base), "algorithm": entry.name}
    return merge({**known, **inherited}, mapping)


def _section(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = mapping.get(name) or {}
    if not isinstance(section, Mapping):
        raise UsageError(f"{name}: expected a mapping, found {section!r}")
    return section
