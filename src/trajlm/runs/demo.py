"""The demo: from shipped behaviours to a running half-cheetah, within a time that is kept.

estimate -> collect -> train -> evaluate -> video -> report. A second run takes what is there: the
dataset, the checkpoints, the scores.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.algorithms.base import Algorithm
from trajlm.collect.behaviour import body_facts
from trajlm.collect.collector import collect, dataset_id
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.minari_form import folder_of
from trajlm.data.store import TrajectoryStore
from trajlm.envs.make import make_environment
from trajlm.envs.spaces import from_gymnasium
from trajlm.runs.config import RunConfig, resolve
from trajlm.runs.estimate import update_rate
from trajlm.runs.folder import META_FILE, RESULTS_FILE, RUN_FILE, read_json
from trajlm.runs.offline import assemble, choose_device, resume, run
from trajlm.runs.scoring import Progress, evaluation_folder, policy_of

BODY, TIER = "halfcheetah", "medium-expert"
DEMO_FILE = "demo.json"
EPISODE_STEPS = 1000
COLLECTED_PER_SECOND = 8_000.0
VIDEO_AND_REPORT_SECONDS = 30.0
# Checkpoints, validation, and a machine that is a little slower than it was when measured.
SHARE_FOR_UPDATES = 0.85
FEWEST_UPDATES = 10
SHARE_FOR_SCORES = 0.3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a demo is. `own_data`: its dataset lies beside the run, not among the user's."""

    recipe: str
    steps: int
    updates: int
    episodes: int
    video_steps: int
    own_data: bool = False


SCALES: Mapping[str, Scale] = {
    "full": Scale(
        recipe="decision_transformer/halfcheetah",
        steps=200_000,
        updates=6_000,
        episodes=10,
        video_steps=400,
    ),
    "debug": Scale(
        recipe="decision_transformer/debug",
        steps=4_000,
        updates=30,
        episodes=1,
        video_steps=40,
        own_data=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What came of it. Of what was planned (`wanted`, `wanted_episodes` a target), `updates` and
    `episodes` fitted into the time."""

    folder: Path
    results: Mapping[str, Any]
    updates: int
    wanted: int
    episodes: int
    wanted_episodes: int
    budget_minutes: float
    dataset: Path
    page: Path
    video: Path | None
    seconds: float

    @property
    def note(self) -> str:
        """A sentence for the table."""
        parts = [
            f"{made:,} of {wanted:,} {what}" if made < wanted else f"{made:,} {what}"
            for made, wanted, what in (
                (self.updates, self.wanted, "updates"),
                (self.episodes, self.wanted_episodes, "episodes a target"),
            )
        ]
        if self.updates >= self.wanted and self.episodes >= self.wanted_episodes:
            return ", ".join(parts)
        return (
            f"{', '.join(parts)}: all would have taken this machine over "
            f"{self.budget_minutes:g} minutes (--time-budget)"
        )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Measured on this machine: updates a second, seconds of a whole evaluation."""

    updates_per_s: float
    evaluation_seconds: float


def demo(
    scale: str = "full",
    *,
    build_report: Callable[[Sequence[Path], Path], Path],
    output: Path = Path("runs"),
    minutes: float = 9.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Demo:
    """Run the demo, or what is missing of it, in `output`/demo.

    `minutes`: what it may take from here to the report; fewer updates are made where the measured
    rate would pass them. `build_report` writes the page. Raises `Interrupted` on a signal; the
    next call goes on from there.
    """
    started = time.monotonic()
    if scale not in SCALES:
        raise UsageError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
    size = SCALES[scale]
    folder = output / ("demo" if scale == "full" else f"demo-{scale}")
    root = output / f"demo-{scale}-data" if size.own_data else None
    dataset = folder_of(dataset_id(BODY, TIER), root=root)
    if not (folder / RUN_FILE).is_file():
        config = _config(size, dataset=dataset, seed=seed)
        logger.info("measuring this machine's pace")
        pace = measure(config)
        _say_estimate(size, pace, collected=dataset.exists(), minutes=minutes)
        _dataset(size, dataset, root=root, seed=seed, progress=progress)
        config = within(config, pace, seconds=60.0 * minutes - (time.monotonic() - started))
        run(config, folder=folder, progress=progress)
    elif _scores(folder) is None:
        logger.info("going on with %s", folder)
        _dataset(size, dataset, root=root, seed=seed, progress=progress)
        resume(folder, progress=progress)
    else:
        logger.info("%s is finished", folder)
    results = _scores(folder)
    assert results is not None  # HalfCheetah is known
    page = build_report([folder], folder / "report.html")
    step = int(results["protocol"]["checkpoint_step"])
    films = sorted(evaluation_folder(folder, step).glob("video.*"))
    return Demo(
        folder=folder,
        results=results,
        updates=step,
        wanted=size.updates,
        episodes=int(results["protocol"]["episodes"]),
        wanted_episodes=size.episodes,
        budget_minutes=minutes,
        dataset=dataset,
        page=page,
        video=films[0] if films else None,
        seconds=time.monotonic() - started,
    )


def within(config: RunConfig, pace: Pace, *, seconds: float) -> RunConfig:
    """The run with as many of its updates and episodes as fit into `seconds`, video included."""
    allowed = SHARE_FOR_SCORES * seconds / max(pace.evaluation_seconds, 1e-9)
    episodes = max(1, int(config.evaluation.episodes * min(1.0, allowed)))
    scores = pace.evaluation_seconds * episodes / config.evaluation.episodes
    left = max(0.0, seconds - scores - VIDEO_AND_REPORT_SECONDS)
    affordable = int(SHARE_FOR_UPDATES * left * pace.updates_per_s)
    planned = config.training.steps
    updates = min(planned, max(FEWEST_UPDATES, affordable))
    if updates < planned:
        logger.warning(
            "this machine makes %.1f updates/s: %s updates instead of %s, to keep the time",
            pace.updates_per_s,
            f"{updates:,}",
            f"{planned:,}",
        )
    # A schedule keeps its shape: the warm-up shrinks with the updates.
    warmup = config.training.warmup_steps * updates // planned
    training = replace(
        config.training, steps=updates, warmup_steps=warmup, time_limit=max(1.0, left)
    )
    evaluation = replace(config.evaluation, episodes=episodes)
    return replace(config, training=training, evaluation=evaluation)


def measure(config: RunConfig) -> Pace:
    """The machine's pace on data of the dataset's form, before there is any."""
    store = _stand_in(body_facts(BODY)["env_id"])
    assembly = assemble(config, store)
    rate, _ = update_rate(config, assembly, device=choose_device(config.device))
    slots = config.evaluation.episodes * len(config.target_returns)
    acting = acting_seconds(assembly.model, config, slots=slots)
    return Pace(updates_per_s=rate, evaluation_seconds=acting * EPISODE_STEPS)


def acting_seconds(
    model: Algorithm, config: RunConfig, *, slots: int, seconds: float = 2.0
) -> float:
    """Seconds of one step of `slots` environments, policy and physics, with a full context."""
    model.eval()
    policy = policy_of(model, config.policy, config.evaluation)
    observation = model.spec.observation
    assert isinstance(observation, Box)
    step = Step(
        observation=np.zeros((slots, *observation.shape), np.float32),
        reward=np.zeros(slots),
        terminated=np.zeros(slots, bool),
        truncated=np.zeros(slots, bool),
        is_first=np.ones(slots, bool),
        seed=np.arange(slots),
    )
    asked = Condition(target_return=np.full(slots, model.spec.return_max))
    carry, _ = policy.act(policy.initial(slots, asked), step)
    later = replace(step, is_first=np.zeros(slots, bool))
    # Every policy here recomputes at most its window, whose length is the request's.
    for _ in range(model.windows(model.config, model.spec).length):
        carry, _ = policy.act(carry, later)
    before, steps = time.perf_counter(), 0
    while time.perf_counter() - before < seconds:
        carry, _ = policy.act(carry, later)
        steps += 1
    physics_per_step = 1 / 15_000.0
    return (time.perf_counter() - before) / steps + slots * physics_per_step


# ---- stages -------------------------------------------------------------------------------------


def _config(size: Scale, *, dataset: Path, seed: int) -> RunConfig:
    facts = body_facts(BODY)
    medium, expert = float(facts["medium_return"]), float(facts["expert_return"])
    wanted = (expert, (medium + expert) / 2, medium, 0.75 * medium)
    targets = [float(round(value, -2)) for value in wanted]
    return resolve(
        size.recipe,
        {
            "seed": seed,
            "data": {"path": str(dataset)},
            "training": {"steps": size.updates},
            "evaluation": {"episodes": size.episodes, "video_steps": size.video_steps},
            "policy": {"target_return": targets},
        },
    )


def _say_estimate(size: Scale, pace: Pace, *, collected: bool, minutes: float) -> None:
    data = 0.0 if collected else size.steps / COLLECTED_PER_SECOND
    training = size.updates / pace.updates_per_s / SHARE_FOR_UPDATES
    after = pace.evaluation_seconds + VIDEO_AND_REPORT_SECONDS
    total = (data + training + after) / 60
    logger.info(
        "about %.1f minutes: data %.0f s, %s updates at %.1f/s %.0f s, scores, video and report "
        "%.0f s%s",
        min(total, minutes),
        data,
        f"{size.updates:,}",
        pace.updates_per_s,
        training,
        after,
        f"; fewer updates, to stay within {minutes:g} minutes" if total > minutes else "",
    )


def _dataset(
    size: Scale, dataset: Path, *, root: Path | None, seed: int, progress: Progress | None
) -> None:
    if dataset.exists():
        logger.info("data: %s, which is there", dataset)
        return
    logger.info("data: collecting %s steps of %s/%s", f"{size.steps:,}", BODY, TIER)
    collect(
        BODY,
        TIER,
        steps=size.steps,
        seed=seed,
        root=root,
        progress=None if progress is None else lambda n, total: progress("collecting", n / total),
    )


def _scores(folder: Path) -> Mapping[str, Any] | None:
    """The scores of a run whose training has ended and that has all it will have, else None."""
    meta = folder / META_FILE
    if not meta.is_file() or not read_json(meta).get("finished"):
        return None
    step = int(read_json(meta)["training"]["step"])
    file = evaluation_folder(folder, step) / RESULTS_FILE
    return read_json(file) if file.is_file() else None


def _stand_in(env_id: str, *, episodes: int = 4) -> TrajectoryStore:
    """Noise in the form of the environment's data, to time updates on."""
    environment = make_environment(env_id)
    observation = from_gymnasium(environment.observation_space)
    action = from_gymnasium(environment.action_space)
    environment.close()
    generator = np.random.default_rng(0)

    def noise(steps: int, shape: Sequence[int]) -> np.ndarray:
        return generator.uniform(-1, 1, (steps, *shape)).astype(np.float32)

    trajectories = [
        Trajectory(
            columns={
                "observations": noise(EPISODE_STEPS + 1, observation.shape),  # type: ignore[union-attr]
                "actions": noise(EPISODE_STEPS, action.shape),  # type: ignore[union-attr]
                "rewards": noise(EPISODE_STEPS, ()),
            },
            terminated=False,
            truncated=True,
        )
        for _ in range(episodes)
    ]
    return TrajectoryStore.from_trajectories(
        trajectories, observation_space=observation, action_space=action, env_id=env_id
    )
