"""Writes arrays in the form of Pendulum-v1's data, for tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

EPISODE_STEPS = 200
# A model and a training that take a second.
TINY = {
    "training": {"steps": 12, "checkpoint_every": 4, "log_every": 2, "tensorboard": False},
    "evaluation": {"episodes": 2, "video": False},
    "policy": {"target_return": [-300.0, -900.0]},
    "threads": 1,
}
TINY_FLAGS = [
    *("--training.steps", "12", "--training.checkpoint-every", "4", "--training.log-every", "2"),
    *("--training.no-tensorboard", "--evaluation.no-video", "--episodes", "2", "--threads", "1"),
    *("--policy.target-return", "-300", "-900", "--data.env-id", "Pendulum-v1"),
]


def pendulum_arrays(episodes: int = 24) -> dict[str, np.ndarray]:
    """Flat rows (N, ...) of `episodes` episodes of noise in Pendulum's ranges."""
    generator = np.random.default_rng(0)
    rows = episodes * EPISODE_STEPS
    angle = generator.uniform(-np.pi, np.pi, rows)
    speed = generator.uniform(-8, 8, rows)
    actions = generator.uniform(-1, 1, (rows, 1))
    last = np.arange(rows) % EPISODE_STEPS == EPISODE_STEPS - 1
    return {
        "observations": np.stack([np.cos(angle), np.sin(angle), speed], 1).astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": generator.uniform(-8, 0, rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": last,
    }


def write_pendulum(path: Path, episodes: int = 24, **changed: np.ndarray) -> Path:
    """An `.npz` of them, with some arrays replaced."""
    np.savez(path, **{**pendulum_arrays(episodes), **changed})
    return path
