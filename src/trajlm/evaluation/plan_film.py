"""A video of plans against what came of them: the true body above, the planned one below.

A plan is made every horizon steps and acted to its end, so that for each of its steps there is a
planned body and a true one, both from the same present.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import StorageError
from trajlm.envs.vector import VectorEnvironment
from trajlm.evaluation.bodies import Body
from trajlm.evaluation.drawing import write_texts
from trajlm.evaluation.rendering import Renderer
from trajlm.evaluation.video import PIP_LINE, write_film
from trajlm.planning.futures import Futures

SIZE = (480, 220)
FASTEST = 15.0

logger = logging.getLogger(__name__)


def film_plans(
    policy: Any,
    environment: VectorEnvironment,
    body: Body,
    *,
    seed: int,
    max_steps: int,
    path: Path,
    gl: bool | None = None,
) -> Path | None:
    """Film an episode of one environment; the path written, None where nothing can be drawn.

    `policy` acts every plan to its end, and its carry holds the plan as tokens. A picture a step,
    slower than real time.
    """
    if importlib.util.find_spec("PIL") is None:
        logger.warning("no video: Pillow is missing; %s", PIP_LINE)
        return None
    renderer = body.renderer(SIZE, gl=gl)
    if renderer is None:
        return None
    frames = _frames(policy, environment, body, renderer, seed=seed, max_steps=max_steps)
    try:
        return write_film(frames, path, frames_per_second=min(FASTEST, 1 / body.step_seconds))
    except OSError as error:
        raise StorageError(f"{path}: the video cannot be written: {error}") from error
    finally:
        renderer.close()


def _frames(
    policy: Any,
    environment: VectorEnvironment,
    body: Body,
    renderer: Renderer,
    *,
    seed: int,
    max_steps: int,
) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) until the episode is over."""
    physics: Any = environment.environments[0].unwrapped
    carry, step = policy.initial(1), environment.reset(seeds=np.array([seed]))
    planned: list[Any] = []
    total, age = 0.0, 0
    for number in range(max_steps):
        carry, actions = policy.act(carry, step)
        age = int(carry.age[0]) - 1
        if age == 0:
            planned = _planned(policy, carry, step.observation, body, physics)
        true, foreseen = physics.data, planned[age]
        x = float(true.qpos[0])
        texts = (f"{environment.env_id}, true", f"return {total:,.0f}", f"step {number}")
        upper = write_texts(renderer.picture(true), *texts)
        apart = f"{abs(float(foreseen.qpos[0]) - x):.2f} m apart"
        told = "a new plan" if age == 0 else f"planned, step +{age} of {len(planned) - 1}"
        lower = write_texts(renderer.picture(foreseen, x=x), told, "", apart)
        yield np.concatenate([upper, lower])
        step = environment.step(actions)
        total += float(step.reward[0])
        if bool(step.terminated[0] | step.truncated[0]):
            break


def _planned(policy: Any, carry: Any, observation: Any, body: Body, physics: Any) -> list[Any]:
    """The bodies of the newest plan, the present one first."""
    model = policy.model
    futures = Futures.of(carry.plan, layout=model.layout, discretizer=model.discretizer)
    observed = np.concatenate([np.asarray(observation), futures.observations[0]])
    return body.poses(observed, x=float(physics.data.qpos[0]))
