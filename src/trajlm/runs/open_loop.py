"""An open-loop prediction beside the truth: what the model expects to follow a recorded step.

The model sees its context of a recorded episode, held out where there is one, and continues it by
itself with the likeliest tokens: observations, actions and rewards. Beside it, what was recorded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trajlm.core.errors import UsageError
from trajlm.core.formats import PLAN_FORMAT
from trajlm.core.protocols import Observation, Step
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore, is_observation
from trajlm.planning.futures import Futures
from trajlm.runs.assembly import hold_out
from trajlm.runs.folder import make_folder
from trajlm.runs.plan import (
    PAST_SHOWN,
    Scene,
    beams,
    check_dimensions,
    informative,
    numbers,
    write_record,
)

OPEN_LOOP_FILE = "open_loop.json"


def open_loop(
    scene: Scene,
    store: TrajectoryStore,
    *,
    start: int,
    horizon: int,
    output: Path,
    beam_width: int = 1,
    dimensions: tuple[int, ...] = (),
) -> tuple[dict[str, Any], Path]:
    """Predict what follows step `start` of an episode; what open_loop.json says, and its folder.

    `horizon` transitions, by `beam_width` 1 greedily. Raises `UsageError` where no episode is as
    long.
    """
    check_dimensions(dimensions, scene)
    number, held_out = _episode(store, scene, longer_than=start)
    episode = store.episode(number)
    rows = _rows(scene, episode)
    future = _continued(scene, rows, episode, start=start, horizon=horizon, beam_width=beam_width)
    plans, futures = future
    size, rewards = scene.policy.model.layout.observation_size, episode.columns["rewards"]
    first = max(0, start - PAST_SHOWN)
    last = start + futures.rewards.shape[1]
    record = {
        "format": PLAN_FORMAT,
        "kind": "open_loop",
        "protocol": scene.protocol(step=start, episode=number, held_out=held_out),
        "names": scene.names,
        "dimensions": list(dimensions) or _moving(rows[start:last, :size], scene, futures),
        "past": {
            "first_step": first,
            "observations": numbers(rows[first : start + 1, :size]),
            "rewards": numbers(rewards[first:start]),
        },
        "beams": beams(plans, futures),
        "chosen": 0,
        "truth": {
            "observations": numbers(rows[start + 1 : last + 1, :size]),
            "rewards": numbers(rewards[start:last]),
            "ended": last >= len(episode),
        },
    }
    folder = make_folder(Path(str(output).replace("{steps}", str(start))))
    write_record(folder / OPEN_LOOP_FILE, record)
    return record, folder


def _episode(store: TrajectoryStore, scene: Scene, *, longer_than: int) -> tuple[int, bool]:
    """The first episode with a step to predict, and whether it was held out."""
    kept, aside = hold_out(store, fraction=scene.config.training.validation_fraction)
    for candidates, held_out in ((aside, True), (kept, False)):
        long = candidates[store.lengths[candidates] > longer_than + 1]
        if len(long):
            return int(long[0]), held_out
    raise UsageError(
        f"steps: no episode of {store.name} has a step after {longer_than}; the longest has "
        f"{int(store.lengths.max())}"
    )


def _rows(scene: Scene, episode: Trajectory) -> np.ndarray:
    """The transitions (T, D) of an episode in real numbers; values are left 0, they are never seen."""
    layout = scene.policy.model.layout
    steps = len(episode)
    rows = np.zeros((steps, layout.size), np.float32)
    columns = {name: column[:steps] for name, column in episode.columns.items()}
    rows[:, : layout.observation_size] = layout.observation_rows(columns)
    rows[:, layout.actions] = layout.action_rows(columns["actions"])
    rows[:, layout.reward] = columns["rewards"]
    return rows


def _continued(
    scene: Scene,
    rows: np.ndarray,
    episode: Trajectory,
    *,
    start: int,
    horizon: int,
    beam_width: int,
) -> tuple[Any, Futures]:
    """The likeliest continuations of the episode after it observed step `start`."""
    policy, model = scene.policy, scene.policy.model
    fits = policy.window.past + horizon <= (model.block_size + 1) // model.layout.size
    config = replace(
        policy.config,
        search="likelihood",
        horizon=horizon,
        beam_width=beam_width,
        replan_every=1,
        window=policy.config.window if fits else "published",
    )
    reader = replace(policy, config=config, guide=None)
    reward = float(rows[start - 1, model.layout.reward]) if start else 0.0
    step = Step.of(np.empty(0), reward=reward, is_first=start == 0)
    step = replace(step, observation=_observation(episode, start))
    _, plans = reader.plan(_remembered(reader, rows[:start]), step)
    tokens = plans.tokens[0]
    return plans, Futures.of(tokens, layout=model.layout, discretizer=model.discretizer)


def _observation(episode: Trajectory, start: int) -> Observation:
    """What a single environment shows at a recorded step."""
    leaves = {
        name.partition("/")[2]: column[start : start + 1]
        for name, column in episode.columns.items()
        if is_observation(name)
    }
    return leaves.get("", leaves)


def _remembered(policy: Any, rows: np.ndarray) -> Any:
    """The policy's memory after the transitions (t, D), the last of which has just been acted."""
    carry, layout = policy.initial(1), policy.model.layout
    if not len(rows):
        return carry
    device = carry.past.device
    seen = policy.model.discretizer.encode(
        torch.from_numpy(rows[-carry.past.shape[1] - 1 :]).to(device)
    )
    seen[:, layout.value] = 0  # as the policy has it
    past = carry.past.clone()
    before = len(seen) - 1
    if before:
        past[0, -before:] = seen[:-1]
    return replace(
        carry,
        past=past,
        observation=seen[-1:, : layout.observation_size],
        action=seen[-1:, layout.actions],
        steps=torch.full_like(carry.steps, len(rows)),
    )


def _moving(true: np.ndarray, scene: Scene, futures: Futures) -> list[int]:
    """What moved most in the recorded steps; one beam differs from no other."""
    if len(futures.rewards) > 1:
        return informative(futures, scene)
    return informative(replace(futures, observations=np.diff(true, axis=0)[:, None]), scene)
