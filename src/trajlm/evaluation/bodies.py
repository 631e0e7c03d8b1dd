"""Bodies from observations: MuJoCo's bodies as a model predicts them, beside the true ones.

Half-cheetah, hopper and walker observe their positions but the first (where they are), then their
velocities; so does a humanoid or an ant that observes nothing more, but for the first two. Where they
are along x is summed up from the velocity; across, they are drawn at 0.

Legend: K moments, O observation entries, Q positions, V velocities; P plans.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.spec import Box
from trajlm.envs.vector import VectorEnvironment
from trajlm.evaluation.drawing import write_texts
from trajlm.evaluation.rendering import (
    Renderer,
    is_free,
    is_planar,
)
from trajlm.evaluation.video import PIP_LINE, renderer_of

PANEL = (240, 190)
MOST_PANELS, MOST_GHOSTS = 8, 12
_WORDS = {"rootx": "forward", "rootz": "height", "rooty": "pitch"}
_FREE_POSITIONS = ["height (m)", *(f"orientation {axis}" for axis in "wxyz")]
_FREE_VELOCITIES = [
    *(f"{way} velocity (m/s)" for way in ("forward", "sideways", "height")),
    *(f"turning about {axis} (rad/s)" for axis in "xyz"),
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body that is observed whole, but for where it is. `step_seconds`: between two observations."""

    model: Any
    step_seconds: float

    @property
    def unseen(self) -> int:
        """Positions that are not observed: along x, and across where it can move there."""
        return 2 if is_free(self.model) else 1

    @property
    def seen(self) -> int:
        """Positions that are observed: so many entries before the velocities."""
        return int(self.model.nq) - self.unseen

    @classmethod
    def of(cls, environment: VectorEnvironment) -> Body | None:
        """None for what is no such body, or is not observed so."""
        physics: Any = environment.environments[0].unwrapped
        model: Any = getattr(physics, "model", None)
        space = environment.observation_space
        if type(model).__name__ != "MjModel" or not isinstance(space, Box):
            return None
        if not (is_planar(model) or is_free(model)):
            return None
        body = cls(model=model, step_seconds=float(physics.dt))
        return body if space.shape == (body.seen + model.nv,) else None

    @property
    def names(self) -> list[str]:
        """Of the observation's entries, with their units."""
        joints = [self.model.joint(number).name for number in range(self.model.njnt)]
        words = [_WORDS.get(name, name.replace("_", " ")) for name in joints]
        units = ["m" if kind == 2 else "rad" for kind in self.model.jnt_type]
        both = list(zip(words, units, strict=True))
        positions = [f"{word} ({unit})" for word, unit in both[1:]]
        velocities = [f"{word} velocity ({unit}/s)" for word, unit in both]
        if is_free(self.model):
            return [*_FREE_POSITIONS, *positions, *_FREE_VELOCITIES, *velocities[1:]]
        return positions + velocities

    def pose(self, positions: np.ndarray, velocities: np.ndarray) -> Any:
        """MuJoCo's data of a body at (Q,) with (V,)."""
        import mujoco

        data = mujoco.MjData(self.model)
        data.qpos[:], data.qvel[:] = positions, velocities
        mujoco.mj_forward(self.model, data)
        return data

    def state(self, observation: np.ndarray, *, x: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Positions (Q,) and velocities (V,) of an observation (O,) of a body at `x`. MuJoCo takes
        an orientation of any length."""
        where = np.zeros(self.unseen)
        where[0] = x
        return np.concatenate([where, observation[: self.seen]]), observation[self.seen :]

    def poses(self, observations: np.ndarray, *, x: float) -> list[Any]:
        """Bodies of observations (K, O), the first of which is at `x`."""
        places = x + self._travelled(observations[:, self.seen])
        return [
            self.pose(*self.state(row, x=float(place)))
            for place, row in zip(places, observations, strict=True)
        ]

    def _travelled(self, speeds: np.ndarray) -> np.ndarray:
        """(K,) metres since the first moment, at the mean speed of the two ends of each step."""
        between = (speeds[1:] + speeds[:-1]) / 2
        return np.concatenate([[0.0], self.step_seconds * np.cumsum(between)])

    def renderer(self, size: tuple[int, int], *, gl: bool | None = None) -> Renderer | None:
        return renderer_of(self.model, size=size, gl=gl)


def strip(
    body: Body,
    *,
    planned: Sequence[np.ndarray],
    true: Sequence[tuple[np.ndarray, np.ndarray]],
    path: Path,
    gl: bool | None = None,
) -> Path | None:
    """A PNG of planned moments from left to right, the true bodies under them.

    `planned`: the observations (K, O) of each plan, the chosen one first and solid, the others seen
    through; row 0 is the present. `true`: positions and velocities at the moments there are. None
    where nothing can be drawn.
    """
    if importlib.util.find_spec("PIL") is None:
        logger.warning("no picture of the bodies: Pillow is missing; %s", PIP_LINE)
        return None
    from PIL import Image

    renderer = body.renderer(PANEL, gl=gl)
    if renderer is None:
        return None
    start = float(true[0][0][0])
    plans = [body.poses(rows, x=start) for rows in planned]
    chosen = plans[0]
    columns = []
    try:
        for moment in _moments(len(chosen)):
            real = body.pose(*true[moment]) if moment < len(true) else None
            x = float(chosen[moment].qpos[0] if real is None else real.qpos[0])
            ghosts = _distinct([plan[moment] for plan in plans])[1 : 1 + MOST_GHOSTS]
            upper = renderer.picture(chosen[moment], ghosts=ghosts, x=x)
            lower = _missing() if real is None else renderer.picture(real, x=x)
            when = f"step +{moment}" if moment else "now"
            told = f"true, {when}" if real is not None else "the episode has ended"
            columns.append([write_texts(upper, f"planned, {when}"), write_texts(lower, told)])
    finally:
        renderer.close()
    rows = [np.concatenate(_spaced(list(row)), axis=1) for row in zip(*columns, strict=True)]
    gap = np.full((4, *rows[0].shape[1:]), 255, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([rows[0], gap, rows[1]])).save(path, optimize=True)
    return path


def _distinct(bodies: Sequence[Any]) -> list[Any]:
    """One body of each pose, in their order."""
    return list({tuple(body.qpos.round(3)): body for body in reversed(bodies)}.values())[::-1]


def _moments(count: int) -> list[int]:
    """At most `MOST_PANELS` of them, the first and the last among them."""
    kept = min(count, MOST_PANELS)
    return [round(place) for place in np.linspace(0, count - 1, kept)]


def _missing() -> np.ndarray:
    """A panel for a moment after the episode's end."""
    return np.full((PANEL[1], PANEL[0], 3), 236, np.uint8)


def _spaced(panels: list[np.ndarray]) -> list[np.ndarray]:
    """A white line between panels."""
    line = np.full((PANEL[1], 4, 3), 255, np.uint8)
    return [part for panel in panels for part in (panel, line)][:-1]
