"""One planning step made visible: all beams from the present, and what then truly happened.

A model acts in its environment up to the present, plans once, and the chosen actions are executed
without looking. Written: plan.json (what charts are drawn from) and, of planar bodies, bodies.png.

Legend: P beams, H planned transitions, K true steps, O observation entries, A action entries.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trajlm.algorithms.base import Algorithm
from trajlm.core.config import to_mapping
from trajlm.core.discovery import refuse_without_plans
from trajlm.core.errors import UsageError
from trajlm.core.files import replace_file
from trajlm.core.formats import PLAN_FORMAT
from trajlm.core.protocols import Step
from trajlm.envs.make import check_spaces, make_vector
from trajlm.envs.vector import VectorEnvironment
from trajlm.evaluation.bodies import Body, strip
from trajlm.evaluation.plan_film import film_plans
from trajlm.nn.slots import columns_of
from trajlm.planning.beam import Plans
from trajlm.planning.futures import Futures
from trajlm.planning.timed import Stopwatch
from trajlm.runs.config import RunConfig
from trajlm.runs.facts import installation
from trajlm.runs.folder import finite, make_folder
from trajlm.runs.guide import Guide
from trajlm.runs.scoring import Progress, checkpoint_folder, policy_of
from trajlm.training.checkpoint import load_artefact

PLAN_FILE, BODIES_FILE, VIDEO_FILE = "plan.json", "bodies.png", "plan.mp4"
DRAWN = (BODIES_FILE, "curves.*", "open_loop.*", "plan.mp4", "plan.gif")
"""What a plan before this one may have left."""
PAST_SHOWN = 20
DIMENSIONS_SHOWN = 3
REST, WHOLE = "drawing and scoring", "the whole plan"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where a plan is made: the model, its planner, one environment and its body, if planar."""

    model: Algorithm
    policy: Any
    config: RunConfig
    environment: VectorEnvironment
    body: Body | None
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: Algorithm,
        *,
        config: RunConfig,
        env_id: str | None,
        facts: Mapping[str, Any],
        guide: Guide | None = None,
    ) -> Scene:
        """Raises `UsageError` where no environment is known or the algorithm does not plan."""
        refuse_without_plans(config.algorithm)
        policy = policy_of(model, config.policy, config.evaluation, guide)
        env_id = env_id or model.spec.env_id or config.data.env_id
        if env_id is None:
            raise UsageError(
                f"dataset {model.spec.dataset!r} names no environment; say which: --env-id ID"
            )
        environment = make_vector(env_id, num_envs=1)
        check_spaces(model.spec, environment)
        body = Body.of(environment)
        whole = body is not None and policy.model.layout.observation_size == len(body.names)
        return cls(
            model=model,
            policy=policy,
            config=config,
            environment=environment,
            body=body if whole else None,
            facts={**facts, **({} if guide is None else guide.facts)},
        )

    def close(self) -> None:
        self.environment.close()

    @property
    def names(self) -> list[str]:
        """Of the observation's entries."""
        if self.body is not None:
            return self.body.names
        return [f"observation {i}" for i in range(self.policy.model.layout.observation_size)]

    def row(self, step: Step) -> np.ndarray:
        """The observation of a step as entries (O,)."""
        rows: np.ndarray = self.policy.model.layout.observation_rows(columns_of(step.observation))
        return np.asarray(rows[0])

    def protocol(self, **facts: Any) -> dict[str, Any]:
        spec = self.model.spec
        return {
            **self.facts,
            "env_id": self.environment.env_id,
            **facts,
            "dataset": spec.dataset,
            "data_hash": spec.data_hash,
            "policy": to_mapping(self.policy.config),
            "threads": torch.get_num_threads(),
            **installation(),
        }


@dataclass(frozen=True, kw_only=True)
class Past:
    """The episode up to the present. `carry`: the policy's memory before the present `step`."""

    carry: Any
    step: Step
    observations: list[np.ndarray]
    rewards: list[float]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What happened after the present, which is the first of the `observations` and `states`."""

    observations: list[np.ndarray]
    rewards: list[float]
    states: list[tuple[np.ndarray, np.ndarray]]
    ended: bool


def saved_model(
    folder: Path, *, config: RunConfig, checkpoint: str, device: str
) -> tuple[Algorithm, dict[str, Any], Path]:
    """A checkpoint of the run in `folder`, the facts of it that a plan's protocol says, and where
    its plans go; `{steps}` in it stands for the steps that are acted."""
    saved = checkpoint_folder(folder, checkpoint)
    facts = {
        "algorithm": config.algorithm,
        "recipe": config.recipe,
        "checkpoint": checkpoint,
        "training_seed": config.seed,
        "checkpoint_step": int(saved.name.rpartition("-")[2]),
    }
    place = folder / "plans" / f"{saved.name}-t-{{steps}}"
    return load_artefact(saved, device=device), facts, place


def plan_once(
    scene: Scene,
    *,
    steps: int,
    seed: int,
    output: Path,
    dimensions: Sequence[int] = (),
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Path]:
    """Act `steps` steps, plan, execute the plan; what plan.json says and the folder it is in.

    `output` may hold `{steps}`, the steps that were acted. `dimensions`: entries of the
    observation to show; those in which the beams differ most where empty.
    """
    check_dimensions(dimensions, scene)
    past = _reach(scene, steps=steps, seed=seed, progress=progress)
    watch = Stopwatch(scene.policy.maker)
    timed = replace(scene.policy, token_model=watch)
    started = time.perf_counter()
    _, plans = timed.plan(past.carry, past.step)
    milliseconds = _milliseconds(watch.seconds, time.perf_counter() - started)
    logger.info("%s", ", ".join(f"{part} {spent:.0f} ms" for part, spent in milliseconds.items()))
    futures = Futures.of(
        plans.tokens[0],
        layout=scene.policy.model.layout,
        discretizer=scene.policy.model.discretizer,
    )
    truth = _execute(scene, past, futures.actions[0])
    at = len(past.rewards)
    record = {
        "format": PLAN_FORMAT,
        "kind": "plan",
        "protocol": scene.protocol(seed=seed, step=at),
        "names": scene.names,
        "dimensions": list(dimensions) or informative(futures, scene),
        "past": {
            "first_step": max(0, at - PAST_SHOWN),
            "observations": numbers(np.stack(past.observations[-PAST_SHOWN - 1 :])),
            "rewards": numbers(np.array(past.rewards[-PAST_SHOWN:])),
        },
        "beams": beams(plans, futures),
        "chosen": 0,
        "truth": {
            "observations": numbers(np.stack(truth.observations)[1:]),
            "rewards": numbers(np.array(truth.rewards)),
            "ended": truth.ended,
        },
        "milliseconds": milliseconds,
    }
    folder = make_folder(Path(str(output).replace("{steps}", str(at))))
    for old in (path for kind in DRAWN for path in folder.glob(kind)):
        old.unlink()
    write_record(folder / PLAN_FILE, record)
    _draw_bodies(scene, past, futures, truth, folder / BODIES_FILE)
    return record, folder


def film(
    scene: Scene, *, seed: int, max_steps: int, path: Path, progress: Progress | None = None
) -> Path | None:
    """A video of plans acted to their ends; None, with a line in the log, where there is none."""
    if scene.body is None:
        logger.warning(
            "no video: %s is not a body that is observed whole", scene.environment.env_id
        )
        return None
    if progress is not None:
        progress("recording a video", 0.0)
    whole = replace(
        scene.policy.config,
        horizon=scene.policy.horizon,
        replan_every=scene.policy.horizon,
        early_stop=False,
        time_budget_ms=None,
        warm_start=False,
    )
    written = film_plans(
        replace(scene.policy, config=whole),
        scene.environment,
        scene.body,
        seed=seed,
        max_steps=max_steps,
        path=path,
    )
    if progress is not None:
        progress("recording a video", 1.0)
    return written


# ---- the parts of a record ------------------------------------------------------------------


def check_dimensions(dimensions: Sequence[int], scene: Scene) -> None:
    size = scene.policy.model.layout.observation_size
    for number in dimensions:
        if not 0 <= number < size:
            raise UsageError(f"dimensions: {number} is not in 0..{size - 1}, the entries observed")


def beams(plans: Plans, futures: Futures) -> list[dict[str, Any]]:
    """Every beam in plain numbers, best first."""
    scores = plans.scores[0].tolist()
    return [
        {
            "score": number(score),
            "alive": bool(plans.alive[0, place]),
            "observations": numbers(futures.observations[place]),
            "actions": numbers(futures.actions[place]),
            "rewards": numbers(futures.rewards[place]),
            "values": numbers(futures.values[place]),
        }
        for place, score in enumerate(scores)
    ]


def informative(futures: Futures, scene: Scene) -> list[int]:
    """The entries in which the beams differ most, in the units of their spread in the data."""
    size = scene.policy.model.layout.observation_size
    scale = scene.policy.model.discretizer.values[:size].std(dim=1).cpu().numpy()
    if not futures.observations.size:
        return list(range(min(size, DIMENSIONS_SHOWN)))
    spread = futures.observations.std(axis=0).mean(axis=0) / np.maximum(scale, 1e-9)
    return sorted(int(place) for place in np.argsort(-spread, kind="stable")[:DIMENSIONS_SHOWN])


def numbers(array: np.ndarray) -> Any:
    """Nested lists, six digits a number."""
    return [numbers(row) for row in array] if array.ndim else number(float(array))


def number(value: float) -> float:
    return float(f"{value:.6g}")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Compact: a plan has many thousand numbers."""
    replace_file(path, json.dumps(finite(record), allow_nan=False).encode() + b"\n")


# ---- before and after ---------------------------------------------------------------------------


def _reach(scene: Scene, *, steps: int, seed: int, progress: Progress | None) -> Past:
    """The episode of `seed` after `steps` steps, or a horizon before its end where it ends earlier."""
    policy, environment = scene.policy, scene.environment
    seeds = np.array([seed])
    carry, step = policy.initial(1), environment.reset(seeds=seeds)
    moments, actions = [(carry, step)], list[np.ndarray]()
    while len(actions) < steps:
        if progress is not None:
            progress("acting up to the present", len(actions) / steps)
        carry, action = policy.act(carry, step)
        actions.append(action)
        step = environment.step(action)
        moments.append((carry, step))
        if bool(step.terminated[0] | step.truncated[0]):
            kept = max(0, len(actions) - policy.horizon)
            logger.warning(
                "the episode of seed %d ended after %d steps: planning at step %d",
                seed, len(actions), kept,
            )  # fmt: skip
            environment.reset(seeds=seeds)
            for acted in actions[:kept]:
                environment.step(acted)
            moments = moments[: kept + 1]
            break
    if progress is not None:
        progress("acting up to the present", 1.0)
    return Past(
        carry=moments[-1][0],
        step=moments[-1][1],
        observations=[scene.row(step) for _, step in moments],
        rewards=[float(step.reward[0]) for _, step in moments[1:]],
    )


def _execute(scene: Scene, past: Past, actions: np.ndarray) -> Truth:
    """Act (H, A) from the present on without looking."""
    observations, rewards, states = [past.observations[-1]], [], [_state(scene)]
    ended = False
    for action in scene.policy.model.layout.actions_of(actions):
        step = scene.environment.step(action[None])
        observations.append(scene.row(step))
        rewards.append(float(step.reward[0]))
        states.append(_state(scene))
        ended = bool(step.terminated[0] | step.truncated[0])
        if ended:
            break
    return Truth(observations=observations, rewards=rewards, states=states, ended=ended)


def _state(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    if scene.body is None:
        return np.empty(0), np.empty(0)
    physics: Any = scene.environment.environments[0].unwrapped
    return physics.data.qpos.copy(), physics.data.qvel.copy()


def _draw_bodies(scene: Scene, past: Past, futures: Futures, truth: Truth, path: Path) -> None:
    if scene.body is None:
        logger.info(
            "no picture of bodies: %s is no body that is observed whole", scene.environment.env_id
        )
        return
    present = past.observations[-1][None]
    planned = [np.concatenate([present, rows]) for rows in futures.observations]
    strip(scene.body, planned=planned, true=truth.states, path=path)


def _milliseconds(seconds: Mapping[str, float], whole: float) -> dict[str, float]:
    parts = {part: number(1e3 * spent) for part, spent in seconds.items()}
    rest = max(0.0, whole - sum(seconds.values()))
    return {**parts, REST: number(1e3 * rest), WHOLE: number(1e3 * whole)}
