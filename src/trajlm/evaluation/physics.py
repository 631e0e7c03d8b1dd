"""True dynamics from any state, and what predicted states are worth as bodies.

Legend: M states, H horizon, O observation entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from trajlm.core.errors import EnvironmentFault
from trajlm.envs.make import make_vector
from trajlm.evaluation.bodies import Body

PLAIN = (0.001, 0.999)
"""The shares of true states below and above which a body's energy and joints are called odd."""
LARGEST = 1e3
Rounding = Callable[[np.ndarray], np.ndarray]
"""An observation (O,) to one near to it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of M states: `height` of the body (m), forward `speed` (m/s), `energy` (J, kinetic and
    potential), how far the joints are past their limits at most (`overshoot`, rad), and `healthy`:
    the environment would go on, as one that knows no such end always does."""

    height: np.ndarray
    speed: np.ndarray
    energy: np.ndarray
    overshoot: np.ndarray
    healthy: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Plain:
    """What true states hardly ever leave: the range of energy (J) and the overshoot (rad)."""

    energy: tuple[float, float]
    overshoot: float

    @classmethod
    def of(cls, true: Measured) -> Plain:
        low, high = np.quantile(true.energy, PLAIN)
        return cls(
            energy=(float(low), float(high)), overshoot=float(np.quantile(true.overshoot, PLAIN[1]))
        )

    def plausible(self, measured: Measured, *, moving: bool = True) -> np.ndarray:
        """(M,) bool: healthy, joints within their limits, and neither dead nor exploding; without
        the last where velocities are not known (`moving` False)."""
        posture = measured.healthy & (measured.overshoot <= self.overshoot)
        if not moving:
            return np.asarray(posture)
        energy = (self.energy[0] <= measured.energy) & (measured.energy <= self.energy[1])
        return np.asarray(posture & energy)


class Physics:
    """One environment of a body whose states are observed whole, but for where it is."""

    def __init__(self, env_id: str) -> None:
        self._environment = make_vector(env_id, num_envs=1)
        body = Body.of(self._environment)
        if body is None:
            self._environment.close()
            raise EnvironmentFault(f"{env_id}: no body that is observed whole")
        self.body = body
        self._environment.reset(seeds=np.array([0]))
        self._inner: Any = self._environment.environments[0].unwrapped

    def close(self) -> None:
        self._environment.close()

    def replay(
        self, present: np.ndarray, actions: np.ndarray, *, rounded: Rounding | None = None
    ) -> np.ndarray:
        """Observations (H, O) of the true dynamics from the observation (O,) under actions (H, A),
        whatever the environment calls an end; each state goes on as it is `rounded`."""
        seen, found = present.astype(np.float64), []
        self._put(seen if rounded is None else rounded(seen))
        for action in actions:
            seen = self._inner.step(action)[0]
            if rounded is not None:
                seen = rounded(seen)
                self._put(seen)
            found.append(seen)
        return np.stack(found)

    def _put(self, observation: np.ndarray) -> None:
        self._inner.set_state(*self.body.state(observation))

    def measure(self, observations: np.ndarray) -> Measured:
        """Of observations (M, O); one that is no number, or beyond all bodies, is odd in all."""
        sound = np.isfinite(observations).all(axis=1) & (np.abs(observations) < LARGEST).all(axis=1)
        rows = [
            self._measure(row) if ok else _ODD for row, ok in zip(observations, sound, strict=True)
        ]
        columns = np.array(rows, np.float64).T
        found = dict(zip([field.name for field in fields(Measured)], columns, strict=True))
        return Measured(**{**found, "healthy": found["healthy"] > 0})

    def _measure(self, observation: np.ndarray) -> tuple[float, ...]:
        import mujoco

        model, data = self.body.model, self._inner.data
        positions, velocities = self.body.state(observation.astype(np.float64))
        data.qpos[:], data.qvel[:] = positions, velocities
        mujoco.mj_forward(model, data)
        mujoco.mj_energyPos(model, data)
        mujoco.mj_energyVel(model, data)
        limited = model.jnt_limited.astype(bool)
        angles = positions[model.jnt_qposadr[limited]]
        low, high = model.jnt_range[limited].T
        overshoot = np.maximum(low - angles, angles - high).max(initial=0.0)
        return (
            float(positions[self.body.unseen]), float(velocities[0]), float(data.energy.sum()),
            float(max(overshoot, 0.0)), float(getattr(self._inner, "is_healthy", True)),
        )  # fmt: skip


_ODD = (LARGEST, LARGEST, LARGEST**2, LARGEST, 0.0)
