"""A small dataset in Pendulum's form: no MuJoCo, episodes of 200 steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from pendulum_data import write_pendulum


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `.npz` of 24 episodes which names no environment."""
    return write_pendulum(tmp_path_factory.mktemp("pendulum") / "pendulum.npz")
