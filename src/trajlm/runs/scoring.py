"""Scores of a trained model: from a run's folder or a model at hand to results.json.

This is where a model, the environments and the references of the dataset score meet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trajlm.algorithms.base import Algorithm
from trajlm.collect.behaviour import behaviour_index
from trajlm.core.config import to_mapping
from trajlm.core.errors import CheckpointError, TrajlmError, UsageError
from trajlm.core.protocols import Critic
from trajlm.core.spec import DataSpec
from trajlm.evaluation.config import EvaluationConfig
from trajlm.evaluation.evaluate import Evaluation, write_results
from trajlm.evaluation.evaluate import evaluate as evaluate_policy
from trajlm.evaluation.video import record
from trajlm.runs.config import RunConfig
from trajlm.runs.facts import installation
from trajlm.runs.folder import META_FILE, make_folder, read_json, read_run
from trajlm.runs.guide import Guide, guide_of, load_guide
from trajlm.training.checkpoint import artefact_folder, load_artefact

Progress = Callable[[str, float], None]
"""Called with what is being done and the share that is done, 0 to 1."""

MAX_LANES = 3

logger = logging.getLogger(__name__)


def evaluate(
    model: Algorithm,
    *,
    target_return: float | str | Sequence[float | str] | None = None,
    episodes: int = 50,
    seed: int = 1000,
    env_id: str | None = None,
    policy: Any = None,
    guide: Critic | str | Path | None = None,
    **options: Any,
) -> Evaluation:
    """Scores of `model` in its dataset's environment (or `env_id`), at one or more target returns.

    `policy`: the algorithm's `PolicyConfig`; `options`: further fields of `EvaluationConfig`.
    `guide`: what guides its plans, a critic (`other.critic()`) or the folder of a run that has one.
    Raises `UsageError` where no environment is known, `EnvironmentFault` where it cannot be made.
    """
    if isinstance(target_return, int | float | str):
        target_return = [target_return]
    asked = [model.spec.asked_return(target) for target in target_return or ()]
    return evaluate_model(
        model,
        env_id=env_id,
        targets=asked or None,
        policy=policy,
        guide=guide_of(guide, model=model),
        config=EvaluationConfig(**{"video": False, "episodes": episodes, "seed": seed, **options}),
    )


def evaluate_model(
    model: Algorithm,
    *,
    config: EvaluationConfig,
    env_id: str | None = None,
    targets: Sequence[float] | None = None,
    policy: Any = None,
    guide: Guide | None = None,
    facts: Mapping[str, Any] | None = None,
    reference: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """As `evaluate`, with a ready configuration and the facts of the run."""
    spec = model.spec
    env_id = env_id or spec.env_id
    if env_id is None:
        raise UsageError(
            f"dataset {spec.dataset!r} names no environment; "
            "say which one to evaluate in: --data.env-id ID, or env_id= in Python"
        )
    if not spec.has_statistics:
        raise CheckpointError(
            "this model came without the statistics of its data (of its states, or its bins), so its "
            "scores would mean nothing; write: trajlm convert FOLDER --to trajlm OUT --data DATASET"
        )
    if not config.episodes:
        raise UsageError("episodes: 0 scores nothing; write --episodes 50")
    actor = policy_of(model, policy, config, guide)
    asked = targets_of(policy, spec) if targets is None else targets
    warn_outside(asked, spec)
    installed = installation()
    known = {
        "dataset": spec.dataset,
        "data_hash": spec.data_hash,
        "threads": torch.get_num_threads(),
        "machine": installed["machine"],
        **({} if guide is None else guide.facts),
        **(facts or {}),
    }
    return evaluate_policy(
        actor,
        spec=spec,
        env_id=env_id,
        targets=asked,
        config=config,
        dataset_reference=dataset_reference(env_id) or reference,
        facts=known,
        progress=None if progress is None else lambda share: progress("evaluating", share),
    )


def evaluate_run(
    folder: Path,
    *,
    config: RunConfig | None = None,
    env_id: str | None = None,
    checkpoint: str = "last",
    output: Path | None = None,
    guide: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Evaluation, Path]:
    """Evaluate a checkpoint of the run in `folder`; the scores and the folder they lie in.

    `config`: the run's own where None; its `policy` and `evaluation` are used. `env_id`: where
    not in the environment of the data.
    `output`: where to write instead of `folder/eval/step-STEP`. `guide`: the folder of a run whose
    critic guides the plans.
    """
    config = config or read_run(folder)
    saved = checkpoint_folder(folder, checkpoint)
    model = load_artefact(saved, device=device)
    guided = None if guide is None else load_guide(guide, model=model, device=device)
    step = int(saved.name.rpartition("-")[2])
    evaluation = evaluate_model(
        model,
        env_id=env_id or model.spec.env_id or config.data.env_id,
        policy=config.policy,
        guide=guided,
        config=config.evaluation,
        facts={
            "algorithm": config.algorithm,
            "recipe": config.recipe,
            "training_seed": config.seed,
            "updates": step,
            "checkpoint": checkpoint,
            "checkpoint_step": step,
        },
        reference=_pair(read_json(folder / META_FILE).get("dataset_reference")),
        progress=progress,
    )
    target = output or evaluation_folder(folder, step)
    return evaluation, _keep(
        evaluation, model, config, guide=guided, folder=target, progress=progress
    )


def evaluate_artefact(
    model: Algorithm,
    *,
    name: str,
    config: RunConfig,
    env_id: str | None,
    output: Path,
    guide: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Evaluation, Path]:
    """As `evaluate_run`, of a model that no run of ours is known for; scores go to `output`."""
    guided = None if guide is None else load_guide(guide, model=model)
    evaluation = evaluate_model(
        model,
        env_id=env_id,
        policy=config.policy,
        guide=guided,
        config=config.evaluation,
        facts={"algorithm": config.algorithm, "recipe": name, "checkpoint": "last"},
        progress=progress,
    )
    return evaluation, _keep(
        evaluation, model, config, guide=guided, folder=output, progress=progress
    )


def _keep(
    evaluation: Evaluation,
    model: Algorithm,
    config: RunConfig,
    *,
    guide: Guide | None,
    folder: Path,
    progress: Progress | None,
) -> Path:
    """Write scores and, where asked for, the video into `folder`."""
    target = make_folder(folder)
    write_results(target, evaluation)
    for old in target.glob("video.*"):
        old.unlink()
    if config.evaluation.video:
        protocol = evaluation.protocol
        film(
            model,
            config=config,
            env_id=protocol["env_id"],
            targets=protocol["targets"],
            guide=guide,
            folder=target,
            progress=progress,
        )
    return target


def evaluation_folder(folder: Path, step: int) -> Path:
    """Where the evaluation of a checkpoint lies."""
    return folder / "eval" / f"step-{step:08d}"


def checkpoint_folder(folder: Path, checkpoint: str) -> Path:
    """`last`, `best` or an update's number as the folder below `folder/checkpoints`."""
    if checkpoint in ("last", "best"):
        found = artefact_folder(folder, which=checkpoint)
    elif checkpoint.isdecimal():
        found = folder / "checkpoints" / f"step-{int(checkpoint):08d}"
    else:
        raise UsageError(f"checkpoint {checkpoint!r} is not 'last', 'best' or an update's number")
    if not found.name.startswith("step-") or not found.is_dir():
        there = ", ".join(sorted(p.name for p in folder.glob("checkpoints/step-*"))) or "none"
        raise CheckpointError(f"{folder}: no checkpoint {checkpoint!r}; there are: {there}")
    return found


def film(
    model: Algorithm,
    *,
    config: RunConfig,
    env_id: str,
    targets: Sequence[float | None],
    folder: Path,
    guide: Guide | None = None,
    progress: Progress | None = None,
) -> Path | None:
    """A video in `folder` of an episode at each of a few targets, one lane above the other.

    None where nothing can be drawn, which the log explains. One that is there is kept.
    """
    there = sorted(folder.glob("video.*"))
    if there:
        return there[0]
    if progress is not None:
        progress("recording a video", 0.0)
    asked: list[float] = sorted({t for t in targets if t is not None}, reverse=True)
    # The highest and the lowest are always among the lanes.
    count = min(len(asked), MAX_LANES)
    lanes = [asked[round(i * (len(asked) - 1) / max(1, count - 1))] for i in range(count)]
    path = record(
        policy_of(model, config.policy, config.evaluation, guide),
        env_id=env_id,
        target=lanes or None,
        seed=config.evaluation.seed,
        path=folder / "video.mp4",
        max_steps=config.evaluation.video_steps,
    )
    if progress is not None:
        progress("recording a video", 1.0)
    return path


def policy_of(
    model: Algorithm, policy: Any, config: EvaluationConfig, guide: Guide | None = None
) -> Any:
    """The model's policy at the evaluation's precision, where the algorithm knows precisions."""
    if policy is not None and "precision" in to_mapping(policy):
        policy = replace(policy, precision=config.precision)
    return model.policy(policy, guide=None if guide is None else guide.critic)


def targets_of(policy: Any, spec: DataSpec) -> list[float | None]:
    """The returns to ask for: the policy's, else the best in the data; None where it asks nothing."""
    fields = {} if policy is None else to_mapping(policy)
    if "target_return" not in fields:
        return [None]
    return [spec.asked_return(target) for target in fields["target_return"] or ["max"]]


def warn_outside(targets: Sequence[float | None], spec: DataSpec) -> None:
    """Warn of returns that no episode of the data has reached."""
    low, high = spec.return_min, spec.return_max
    outside = [
        f"{t:,.0f}" for t in targets if t is not None and low < high and not low <= t <= high
    ]
    if outside:
        logger.warning(
            "asked for %s: outside the returns in the data, %s to %s; expect no more than these",
            ", ".join(outside),
            f"{low:,.0f}",
            f"{high:,.0f}",
        )


def dataset_reference(env_id: str) -> tuple[float, float] | None:
    """(random, expert) mean returns of the shipped behaviours in this environment, where known."""
    try:
        bodies = behaviour_index()
    except TrajlmError:
        return None
    for facts in bodies.values():
        if facts.get("env_id") == env_id:
            return _pair([facts.get("random_return"), facts.get("expert_return")])
    return None


def _pair(value: Any) -> tuple[float, float] | None:
    if isinstance(value, list | tuple) and len(value) == 2 and None not in value:
        return float(value[0]), float(value[1])
    return None
