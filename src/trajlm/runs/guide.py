"""A guide: another model's critic, in place of what a planner believes comes after its plans."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajlm.algorithms.base import Algorithm
from trajlm.core.discovery import algorithms
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Critic
from trajlm.envs.spaces import describe, same_kind
from trajlm.runs.folder import RUN_FILE, read_run
from trajlm.training.checkpoint import algorithm_name, artefact_folder, load_artefact

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Guide:
    """A critic and what results say of it: `guide` (its recipe, or its kind), its folder, its data."""

    critic: Critic
    facts: Mapping[str, Any]


def load_guide(
    folder: str | Path, *, model: Algorithm, checkpoint: str = "last", device: str = "cpu"
) -> Guide:
    """The critic of the run or artefact in `folder`, as a guide for the plans of `model`.

    Raises `CheckpointError` for a broken folder, `UsageError` where its algorithm offers no critic or
    it was trained on other spaces than `model`.
    """
    folder = Path(folder)
    saved = artefact_folder(folder, which=checkpoint)
    other = load_artefact(saved, device=device)
    critic, name = other.critic(), algorithm_name(other)
    if critic is None:
        raise UsageError(
            f"guide {folder}: {name} offers no critic; those that do: {', '.join(critics())}"
        )
    for kind in ("observation", "action"):
        ours, theirs = getattr(model.spec, kind), getattr(other.spec, kind)
        if not same_kind(ours, theirs):
            raise UsageError(
                f"guide {folder}: trained on {kind}s {describe(theirs)}, the model on "
                f"{describe(ours)}; train it on the model's data"
            )
    _warn_of_another_discount(folder, model, other)
    is_run = (folder / RUN_FILE).is_file()
    facts = {
        "guide": read_run(folder).recipe if is_run else name,
        "guide_folder": str(folder),
        "guide_checkpoint": saved.name,
        "guide_data_hash": other.spec.data_hash,
    }
    return Guide(critic=critic, facts=facts)


def guide_of(given: Guide | Critic | str | Path | None, *, model: Algorithm) -> Guide | None:
    """What was given in Python as a guide: a folder, a critic at hand, or one that is ready."""
    if given is None or isinstance(given, Guide):
        return given
    if isinstance(given, str | Path):
        return load_guide(given, model=model)
    kind = type(given)
    return Guide(critic=given, facts={"guide": f"{kind.__module__}.{kind.__qualname__}"})


def critics() -> list[str]:
    """The algorithms that offer a critic."""
    return [
        name
        for name, entry in algorithms().items()
        if entry.algorithm_class.critic is not Algorithm.critic
    ]


def _warn_of_another_discount(folder: Path, model: Algorithm, other: Algorithm) -> None:
    ours, theirs = (getattr(each.config, "discount", None) for each in (model, other))
    if None not in (ours, theirs) and ours != theirs:
        logger.warning(
            "guide %s: its discount is %s, the model's %s; rewards before and after count differently",
            folder,
            theirs,
            ours,
        )
