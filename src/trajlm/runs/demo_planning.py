"""The demo's second part: a small model of whole trajectories, and what it foresees.

train -> a plan and an open-loop prediction drawn -> scored, where whole episodes fit into the time.
A second call takes what is there, and scores what the call before it had no time to score.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajlm.algorithms.base import Algorithm
from trajlm.core.config import merge
from trajlm.runs.assembly import load_store
from trajlm.runs.config import RunConfig, resolve
from trajlm.runs.folder import META_FILE, RESULTS_FILE, RUN_FILE, read_json, read_run
from trajlm.runs.offline import final_evaluation, resume, run
from trajlm.runs.open_loop import OPEN_LOOP_FILE, open_loop
from trajlm.runs.pace import EPISODE_STEPS, Pace, acting_seconds, measure, with_updates
from trajlm.runs.plan import Scene, plan_once, saved_model
from trajlm.runs.scoring import Progress, evaluation_folder
from trajlm.training.metrics import MetricsLog

LOADING_AND_PICTURES_SECONDS = 40.0
"""Tokens of the data, the held-out loss by return, a plan, a prediction and the report."""
REPORT_SECONDS = 10.0
ACCURACY = "validation/accuracy/"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlanningScale:
    """How large this part is. `steps`: acted before the plan that is drawn, and recorded before the
    prediction, which is `foreseen` steps long. `changes`: to the recipe."""

    recipe: str
    updates: int
    steps: int
    foreseen: int
    video_steps: int
    changes: Mapping[str, Any]


# An episode's plans are acted to their ends: as they were drawn, and at a fifth of the price of
# planning anew at each step.
PLANNING_SCALES: Mapping[str, PlanningScale] = {
    "full": PlanningScale(
        recipe="trajectory_transformer/halfcheetah",
        updates=1_000,
        steps=50,
        foreseen=15,
        video_steps=200,
        changes={
            "policy": {"beam_width": 16, "horizon": 5, "replan_every": 5},
            "training": {"validation_every": 250, "checkpoint_every": 250},
        },
    ),
    "debug": PlanningScale(
        recipe="trajectory_transformer/debug",
        updates=30,
        steps=6,
        foreseen=4,
        video_steps=20,
        changes={
            "model": {"width": 16, "num_layers": 1},
            "policy": {"beam_width": 2, "context": 2, "horizon": 4, "replan_every": 4},
            "training": {"validation_fraction": 0.25},  # of four episodes
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What came of it. `accuracy`: the share of held-out tokens that were the likeliest, by slot;
    empty where nothing is held out. `num_bins`: what a guess chooses among. `results`: None where no
    whole episode fitted into the time, which `unscored` then says."""

    folder: Path
    updates: int
    wanted: int
    accuracy: Mapping[str, float]
    num_bins: int
    plans: Path
    results: Mapping[str, Any] | None
    unscored: str
    replan_every: int
    beam_width: int


def planning(
    size: PlanningScale,
    folder: Path,
    *,
    dataset: Path,
    make_data: Callable[[], None],
    env_id: str,
    seed: int,
    ends: float,
    progress: Progress | None = None,
) -> Planning:
    """Make in `folder` what of this part is not there, by `ends` of the monotonic clock."""
    meta = folder / META_FILE
    if meta.is_file() and read_json(meta).get("finished"):
        logger.info("%s is trained", folder)
    else:
        make_data()
        _train(
            size, folder, dataset=dataset, env_id=env_id, seed=seed, ends=ends, progress=progress
        )
    config, step = read_run(folder), int(read_json(folder / META_FILE)["training"]["step"])
    model, facts, place = saved_model(folder, config=config, checkpoint="last", device="cpu")
    plans = Path(str(place).replace("{steps}", str(size.steps)))
    if not (plans / OPEN_LOOP_FILE).is_file():  # the last that is written
        make_data()
        _draw(size, model, config, facts, folder=plans, progress=progress)
    results, unscored = _score(folder, model, config, step=step, ends=ends, progress=progress)
    measured = MetricsLog(folder / "metrics.jsonl").values(step, ACCURACY)
    return Planning(
        folder=folder,
        updates=step,
        wanted=size.updates,
        accuracy={name.removeprefix(ACCURACY): share for name, share in measured.items()},
        num_bins=config.model.num_bins,
        plans=plans,
        results=results,
        unscored=unscored,
        replan_every=config.policy.replan_every,
        beam_width=config.policy.beam_width,
    )


# ---- stages -------------------------------------------------------------------------------------


def _train(
    size: PlanningScale,
    folder: Path,
    *,
    dataset: Path,
    env_id: str,
    seed: int,
    ends: float,
    progress: Progress | None,
) -> None:
    """The run in `folder`, without scores."""
    if not (folder / RUN_FILE).is_file():
        config = _config(size, dataset=dataset, seed=seed)
        logger.info("a model that plans: measuring its pace")
        pace = measure(config, env_id=env_id)
        config = within(config, pace, seconds=ends - time.monotonic())
        logger.info("%s updates at %.1f/s", f"{config.training.steps:,}", pace.updates_per_s)
        run(config, folder=folder, scored=False, progress=progress)
    else:
        logger.info("going on with %s", folder)
        resume(folder, scored=False, progress=progress)


def within(config: RunConfig, pace: Pace, *, seconds: float) -> RunConfig:
    """The run with as many of its updates as fit into `seconds`, beside the pictures and, where its
    share of the time is enough for them, the scores."""
    wanted = config.evaluation.episodes
    scores = pace.evaluation_seconds if pace.episodes(wanted, seconds=seconds) >= wanted else 0.0
    film = scores / (wanted * EPISODE_STEPS) * config.evaluation.video_steps
    left = max(0.0, seconds - scores - film - LOADING_AND_PICTURES_SECONDS)
    return with_updates(config, pace, seconds=left)


def _config(size: PlanningScale, *, dataset: Path, seed: int) -> RunConfig:
    return resolve(
        size.recipe,
        merge(
            size.changes,
            {
                "seed": seed,
                "data": {"path": str(dataset)},
                "training": {"steps": size.updates},
                "evaluation": {"episodes": 1, "video_steps": size.video_steps},
            },
        ),
    )


def _draw(
    size: PlanningScale,
    model: Algorithm,
    config: RunConfig,
    facts: Mapping[str, Any],
    *,
    folder: Path,
    progress: Progress | None,
) -> None:
    """A plan in the environment and a prediction of a recorded episode."""
    logger.info("drawing a plan and an open-loop prediction")
    scene = Scene.of(model, config=config, env_id=None, facts=facts)
    with contextlib.closing(scene):
        plan_once(
            scene, steps=size.steps, seed=config.evaluation.seed, output=folder, progress=progress
        )
        open_loop(scene, load_store(config), start=size.steps, horizon=size.foreseen, output=folder)


def _score(
    folder: Path,
    model: Algorithm,
    config: RunConfig,
    *,
    step: int,
    ends: float,
    progress: Progress | None,
) -> tuple[Mapping[str, Any] | None, str]:
    """The scores of whole episodes, or None and why there are none."""
    if not (evaluation_folder(folder, step) / RESULTS_FILE).is_file():
        pace = acting_seconds(model, config, slots=config.evaluation.episodes)
        needed = pace * (EPISODE_STEPS + config.evaluation.video_steps)
        left = ends - time.monotonic() - REPORT_SECONDS
        if needed > left:
            words = (
                f"not scored: an episode would have taken {needed / 60:.1f} minutes and "
                f"{max(0.0, left) / 60:.1f} were left; call again, or: trajlm evaluate {folder}"
            )
            logger.info("%s", words)
            return None, words
    return final_evaluation(config, folder, model, step, progress), ""
