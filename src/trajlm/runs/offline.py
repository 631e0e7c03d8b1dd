"""Offline runs: a dataset, a recipe and a seed become a folder with a trained, scored model.

load -> check -> hold out -> prepare -> build -> train -> evaluate. Nothing is written before the
data has been read and checked and the model built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trajlm.algorithms.base import Algorithm
from trajlm.core.config import merge
from trajlm.core.errors import DataError, UsageError
from trajlm.core.files import replace_file
from trajlm.data.store import TrajectoryStore
from trajlm.data.summary import summarize
from trajlm.runs.assembly import IN_MEMORY, Assembly, assemble, examine, load_store
from trajlm.runs.config import RunConfig, resolve
from trajlm.runs.facts import installation
from trajlm.runs.folder import (
    DATASET_FILE,
    META_FILE,
    RESULTS_FILE,
    RUN_FILE,
    create_folder,
    logged,
    read_json,
    read_run,
    refuse_existing,
    write_json,
)
from trajlm.runs.held_out import loss_by_return
from trajlm.runs.machine import set_machine
from trajlm.runs.scoring import (
    Progress,
    dataset_reference,
    evaluate,
    evaluate_run,
    evaluation_folder,
    film,
    targets_of,
)
from trajlm.training.lock import RunLock
from trajlm.training.trainer import Trainer, TrainResult

__all__ = ["Run", "evaluate", "resume", "run", "train"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run. `results` is its results.json, None where no environment is known or no score
    was asked for."""

    folder: Path
    config: RunConfig
    model: Algorithm
    training: TrainResult
    results: Mapping[str, Any] | None


def train(
    recipe: str,
    *,
    data: str | TrajectoryStore,
    seed: int = 0,
    steps: int | None = None,
    output: str | Path = "runs",
    name: str | None = None,
    env_id: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train `recipe` on `data` (a reference or a store) and evaluate it.

    `steps` replaces the recipe's number of updates; `overrides` is a nested mapping of further
    configuration. Raises the errors of `trajlm.core.errors`, before anything is written where the
    recipe, the data or the folder is at fault.
    """
    store = data if isinstance(data, TrajectoryStore) else None
    given: dict[str, Any] = {"seed": seed, "data": {}}
    given["data"]["path"] = data if isinstance(data, str) else f"{IN_MEMORY}{data.name}"
    if env_id is not None:
        given["data"]["env_id"] = env_id
    if steps is not None:
        given["training"] = {"steps": steps}
    config = resolve(recipe, merge(overrides or {}, given))
    return run(
        config, folder=Path(output) / (name or run_name(config)), store=store, progress=progress
    )


def resume(
    folder: str | Path,
    *,
    config: RunConfig | None = None,
    store: TrajectoryStore | None = None,
    scored: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Continue the run in `folder` (as `config`, where given); a finished run is only read."""
    return run(
        config or read_run(Path(folder)),
        folder=Path(folder),
        store=store,
        resuming=True,
        scored=scored,
        progress=progress,
    )


def run(
    config: RunConfig,
    *,
    folder: Path,
    store: TrajectoryStore | None = None,
    resuming: bool = False,
    scored: bool = True,
    progress: Progress | None = None,
) -> Run:
    """The whole of a run in `folder`, which must be new unless `resuming`; its results are None
    where it is not to be `scored`."""
    if not resuming:
        refuse_existing(folder)
    if config.training.evaluate_every and not config.entry.algorithm_class.acts:
        raise UsageError(f"evaluate_every: {config.algorithm} does not act; leave it 0")
    device = set_machine(device=config.device, threads=config.threads)
    store = load_store(config, store)
    warnings = examine(store, config)
    if resuming:
        _refuse_other_data(folder, store)
    assembly = assemble(config, store)
    if not resuming:
        create_folder(folder, {RUN_FILE: config.to_yaml()})
    with logged(folder / "train.log"):
        for warning in warnings:
            logger.warning("%s", warning)
        with RunLock(folder):
            _describe(folder, config, store, assembly.model)
        trained = _fit(config, folder, assembly, device=device, resuming=resuming)
        _describe_held_out(config, folder, assembly, store)
        results = None
        if scored:
            results = final_evaluation(config, folder, assembly.model, trained.step, progress)
        write_json(folder / META_FILE, {**read_json(folder / META_FILE), "finished": True})
    return Run(
        folder=folder, config=config, model=assembly.model, training=trained, results=results
    )


def run_name(config: RunConfig) -> str:
    """RECIPE-DATASET-seedN, in letters that suit a folder."""
    dataset = Path(config.data.path.partition(":")[2] or config.data.path)
    parts = [config.recipe.replace("/", "-"), dataset.stem or "data", f"seed{config.seed}"]
    text = "-".join(parts)
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)


def _refuse_other_data(folder: Path, store: TrajectoryStore) -> None:
    before = read_json(folder / META_FILE).get("data_hash")
    if before and before != store.content_hash:
        raise DataError(
            f"{folder} was trained on data {before[:12]}, {store.name} is {store.content_hash[:12]}; "
            "give the run its own dataset again"
        )


# ---- training and evaluation --------------------------------------------------------------------


def _describe(folder: Path, config: RunConfig, store: TrajectoryStore, model: Algorithm) -> None:
    """run.yaml, dataset.json and the facts that are known before training.

    What a process before this one measured stays until this one has measured it.
    """
    before = read_json(folder / META_FILE) if (folder / META_FILE).is_file() else {}
    replace_file(folder / RUN_FILE, config.to_yaml().encode())
    write_json(folder / DATASET_FILE, summarize(store))
    env_id = model.spec.env_id
    own = [store.metadata.get("ref_min_score"), store.metadata.get("ref_max_score")]
    reference = (dataset_reference(env_id) if env_id else None) or own
    write_json(
        folder / META_FILE,
        {
            "format": "trajlm.run/1",
            "algorithm": config.algorithm,
            "recipe": config.recipe,
            "seed": config.seed,
            "threads": torch.get_num_threads(),
            "dataset": store.name,
            "data_hash": store.content_hash,
            "env_id": env_id,
            "dataset_reference": None if None in reference else list(reference),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "flops_per_update": model.flops_per_step(config.training.batch_size),
            **installation(),
            **{key: before[key] for key in ("precision", "training") if key in before},
        },
    )


def _fit(
    config: RunConfig, folder: Path, assembly: Assembly, *, device: str, resuming: bool
) -> TrainResult:
    trainer = Trainer(
        assembly.model,
        config=config.training,
        loader=assembly.loader,
        validation=None if assembly.held_out is None else assembly.validation,
        folder=folder,
        seed=config.seed,
        device=device,
        resume=resuming,
        on_evaluate=_evaluation_hook(config, folder, assembly.model),
    )
    result = trainer.run()
    meta = read_json(folder / META_FILE)
    precision = {"name": trainer.precision.name, "reason": trainer.precision.reason}
    facts: dict[str, Any] = {"step": result.step, "stopped_by": result.stopped_by}
    if result.updates_per_s > 0:  # a finished run that was only read keeps its rate
        facts |= {"updates_per_s": result.updates_per_s, "seconds": result.seconds}
    training = {**meta.get("training", {}), **facts}
    write_json(folder / META_FILE, {**meta, "precision": precision, "training": training})
    return result


def _describe_held_out(
    config: RunConfig, folder: Path, assembly: Assembly, store: TrajectoryStore
) -> None:
    """The held-out loss by the return of the episode, in meta.json."""
    if assembly.held_out is None:
        return
    table = loss_by_return(
        assembly.model,
        assembly.held_out,
        assembly.request,
        returns=store.finished.returns,
        batch_size=assembly.loader.batch_size,
        seed=config.seed,
    )
    write_json(folder / META_FILE, {**read_json(folder / META_FILE), "held_out": table})


def _evaluation_hook(
    config: RunConfig, folder: Path, model: Algorithm
) -> Callable[[int], Mapping[str, float]] | None:
    """Scores along the way, where asked for; the run's score is the mean over all targets."""
    if not config.training.evaluate_every or model.spec.env_id is None:
        return None

    def hook(step: int) -> Mapping[str, float]:
        silent = replace(config, evaluation=replace(config.evaluation, video=False))
        evaluation, _ = evaluate_run(folder, config=silent, checkpoint=str(step))
        means = [(row["target_return"], row["return_mean"]) for row in evaluation.rows]
        named = {f"return_{asked or 0:.0f}": mean for asked, mean in means if mean is not None}
        return {**named, "score": float(np.mean(list(named.values()) or [np.nan]))}

    return hook


def final_evaluation(
    config: RunConfig, folder: Path, model: Algorithm, step: int, progress: Progress | None
) -> Mapping[str, Any] | None:
    """The scores of the last weights; read where a run that was finished already has them. None
    for a model that does not act and where no episodes are asked for."""
    if not (model.acts and config.evaluation.episodes):
        return None
    if model.spec.env_id is None:
        logger.warning(
            "no environment is known for this dataset, so the run is not evaluated; write: "
            "trajlm evaluate %s --data.env-id ID",
            folder,
        )
        return None
    done = evaluation_folder(folder, step) / RESULTS_FILE
    if done.is_file():
        results = read_json(done)
        asked = results["protocol"]
        same = asked["evaluation_seed"] == config.evaluation.seed
        same &= asked["episodes"] == config.evaluation.episodes
        same &= asked.get("guide") is None
        if same and asked["targets"] == targets_of(config.policy, model.spec):
            if config.evaluation.video:
                model.eval()
                film(
                    model,
                    config=config,
                    env_id=asked["env_id"],
                    targets=asked["targets"],
                    folder=done.parent,
                    progress=progress,
                )
            # An evaluation along the way named the checkpoint by its update; now it is the last.
            if asked["checkpoint"] != "last":
                asked["checkpoint"] = "last"
                write_json(done, results)
            return results
    evaluation, _ = evaluate_run(folder, config=config, progress=progress)
    return evaluation.to_json()
