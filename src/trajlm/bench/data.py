"""What stands around an update: window sampling, loading a dataset, the command's start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from unittest import mock

import h5py
import numpy as np

from trajlm.algorithms.decision_transformer.model import Model
from trajlm.bench.timing import seconds
from trajlm.bench.training import BATCH_SIZE, CONFIG, SPEC
from trajlm.data.load import load_dataset
from trajlm.data.store import Segment, TrajectoryStore
from trajlm.sequence.loader import Loader


def sampling_seconds(*, transitions: int = 1_000_000, batches: int = 200) -> float:
    """Median seconds of one training batch of HalfCheetah-sized windows (batch 64, K 20)."""
    store = noise_store(transitions)
    prepared = Model.prepare(CONFIG, store)
    loader = Loader(
        prepared.store, Model.windows(CONFIG, store.spec), batch_size=BATCH_SIZE, seed=0
    )
    return median(seconds(lambda step=step: loader.batch(step)) for step in range(batches))  # type: ignore[misc]


def noise_store(transitions: int) -> TrajectoryStore:
    """HalfCheetah's shapes filled with noise: episodes of 1,000 steps."""
    generator = np.random.default_rng(0)
    episodes = transitions // 1000
    segment = Segment(
        columns={
            "observations": generator.standard_normal((transitions, 17), np.float32),
            "actions": generator.uniform(-1, 1, (transitions, 6)).astype(np.float32),
            "rewards": generator.standard_normal(transitions, np.float32),
        },
        lengths=np.full(episodes, 1000),
        terminated=np.zeros(episodes, bool),
        truncated=np.ones(episodes, bool),
        unfinished=np.zeros(episodes, bool),
        seeds=np.full(episodes, -1),
        has_last_observation=False,
    )
    return TrajectoryStore.from_segment(
        segment, observation_space=SPEC.observation, action_space=SPEC.action
    )


def loading_seconds(*, transitions: int = 1_000_000) -> tuple[float, float]:
    """Seconds to load a D4RL-form file of HalfCheetah's shapes: first, and from the cache."""
    columns = noise_store(transitions).segments[0].columns
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "halfcheetah-bench.hdf5"
        with h5py.File(path, "w") as file:
            for name, column in columns.items():
                file[name] = column
            file["terminals"] = np.zeros(transitions, bool)
            file["timeouts"] = np.arange(transitions) % 1000 == 999
        with mock.patch.dict(os.environ, {"TRAJLM_CACHE": str(Path(folder) / "cache")}):
            return seconds(lambda: load_dataset(path)), seconds(lambda: load_dataset(path))


def help_seconds(*, runs: int = 5) -> float:
    """Median wall-clock seconds of the command's help, in processes of its own."""
    command = [sys.executable, "-m", "trajlm.cli.main", "--help"]
    return median(
        seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        for _ in range(runs)
    )
