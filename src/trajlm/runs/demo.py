"""The demo: from shipped behaviours to a running half-cheetah, within a time that is kept.

data -> a model that is asked for returns (here) -> a model that plans (`demo_planning.py`) -> report.
A second call takes what is there: the dataset, the checkpoints, the scores, the plans.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trajlm.collect.behaviour import body_facts
from trajlm.collect.collector import collect, dataset_id
from trajlm.core.errors import UsageError
from trajlm.data.sources.minari_form import folder_of
from trajlm.runs.config import RunConfig, resolve
from trajlm.runs.demo_planning import PLANNING_SCALES, Planning, planning
from trajlm.runs.folder import META_FILE, RESULTS_FILE, RUN_FILE, read_json
from trajlm.runs.offline import resume, run
from trajlm.runs.pace import SHARE_FOR_UPDATES, Pace, measure, with_updates
from trajlm.runs.scoring import Progress, evaluation_folder

BODY, TIER = "halfcheetah", "medium-expert"
COLLECTED_PER_SECOND = 8_000.0
VIDEO_AND_REPORT_SECONDS = 30.0
SHARE_FOR_PLANNING = 0.4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the first part is. `own_data`: its dataset lies beside the run, not among the
    user's."""

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
    `episodes` fitted into the time; `planning` is the second part."""

    folder: Path
    results: Mapping[str, Any]
    updates: int
    wanted: int
    episodes: int
    wanted_episodes: int
    planning: Planning
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


def demo(
    scale: str = "full",
    *,
    build_report: Callable[[Sequence[Path], Path], Path],
    output: Path = Path("runs"),
    minutes: float = 12.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Demo:
    """Run the demo, or what is missing of it, in `output`/demo and `output`/demo-plan.

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

    def make_data() -> None:
        _dataset(size, dataset, root=root, seed=seed, progress=progress)

    first_ends = started + 60.0 * minutes * (1 - SHARE_FOR_PLANNING)
    results = _asked_for_returns(
        size, folder, dataset=dataset, make_data=make_data, seed=seed, ends=first_ends,
        progress=progress,
    )  # fmt: skip
    page = folder / "report.html"
    if not page.is_file():  # should the rest be interrupted
        build_report([folder], page)
    planned = planning(
        PLANNING_SCALES[scale],
        folder.with_name(f"{folder.name}-plan"),
        dataset=dataset,
        make_data=make_data,
        env_id=results["protocol"]["env_id"],
        seed=seed,
        ends=started + 60.0 * minutes,
        progress=progress,
    )
    build_report([folder, planned.folder], page)
    step = int(results["protocol"]["checkpoint_step"])
    films = sorted(evaluation_folder(folder, step).glob("video.*"))
    return Demo(
        folder=folder,
        results=results,
        updates=step,
        wanted=size.updates,
        episodes=int(results["protocol"]["episodes"]),
        wanted_episodes=size.episodes,
        planning=planned,
        budget_minutes=minutes,
        dataset=dataset,
        page=page,
        video=films[0] if films else None,
        seconds=time.monotonic() - started,
    )


# ---- the model that is asked for returns --------------------------------------------------------


def _asked_for_returns(
    size: Scale,
    folder: Path,
    *,
    dataset: Path,
    make_data: Callable[[], None],
    seed: int,
    ends: float,
    progress: Progress | None,
) -> Mapping[str, Any]:
    """The first part's scores: run, gone on with, or read. `ends`: by the monotonic clock."""
    if not (folder / RUN_FILE).is_file():
        config = _config(size, dataset=dataset, seed=seed)
        logger.info("measuring this machine's pace")
        pace = measure(config, env_id=body_facts(BODY)["env_id"])
        seconds = ends - time.monotonic()
        _say_estimate(size, pace, collected=dataset.exists(), seconds=seconds)
        make_data()
        run(within(config, pace, seconds=ends - time.monotonic()), folder=folder, progress=progress)
    elif _scores(folder) is None:
        logger.info("going on with %s", folder)
        make_data()
        resume(folder, progress=progress)
    else:
        logger.info("%s is finished", folder)
    results = _scores(folder)
    assert results is not None  # HalfCheetah is known
    return results


def within(config: RunConfig, pace: Pace, *, seconds: float) -> RunConfig:
    """The run with as many of its updates and episodes as fit into `seconds`, video included."""
    wanted = config.evaluation.episodes
    episodes = max(1, pace.episodes(wanted, seconds=seconds))
    scores = pace.evaluation_seconds * episodes / wanted
    left = max(0.0, seconds - scores - VIDEO_AND_REPORT_SECONDS)
    config = replace(config, evaluation=replace(config.evaluation, episodes=episodes))
    return with_updates(config, pace, seconds=left)


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


def _say_estimate(size: Scale, pace: Pace, *, collected: bool, seconds: float) -> None:
    data = 0.0 if collected else size.steps / COLLECTED_PER_SECOND
    training = size.updates / pace.updates_per_s / SHARE_FOR_UPDATES
    after = pace.evaluation_seconds + VIDEO_AND_REPORT_SECONDS
    total = data + training + after
    logger.info(
        "the first part: about %.1f minutes: data %.0f s, %s updates at %.1f/s %.0f s, scores, "
        "video and report %.0f s%s",
        min(total, seconds) / 60,
        data,
        f"{size.updates:,}",
        pace.updates_per_s,
        training,
        after,
        "; fewer updates, to keep the time" if total > seconds else "",
    )


def _dataset(
    size: Scale, dataset: Path, *, root: Path | None, seed: int, progress: Progress | None
) -> None:
    if dataset.exists():
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
