"""A new algorithm edits no file: a package of four files, found, trained, scored and reported.

The package is written into a temporary folder as pip would install it, and every command is called
on it in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pendulum_data import write_pendulum

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "mean_action/__init__.py": '"""The mean action of the data, or its most frequent one."""\n',
    "mean_action/config.py": '''"""The data's mean or most frequent action, whatever is seen."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    start: float = 0.5


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    sign: float = 1.0
    target_return: tuple[float | str, ...] | None = None
''',
    "mean_action/model.py": """from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mean_action.config import PolicyConfig
from trajlm.algorithms.base import Algorithm, Loss, Prepared
from trajlm.core.spec import Discrete
from trajlm.sequence.batch import WindowRequest


@dataclass(frozen=True)
class Carry:
    steps: np.ndarray

    def select(self, index):
        return Carry(self.steps[index])


class Model(Algorithm):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.discrete = isinstance(spec.action, Discrete)
        size = spec.action.n if self.discrete else spec.action.size
        self.action = nn.Parameter(torch.full((size,), config.start))

    @classmethod
    def prepare(cls, config, store):
        return Prepared(store=store)

    @classmethod
    def build(cls, config, spec, fitted):
        return cls(config, spec)

    @classmethod
    def windows(cls, config, spec):
        return WindowRequest(length=1, columns=("actions",))

    def forward(self, batch):
        if self.discrete:
            actions = batch.actions.flatten()
            value = functional.cross_entropy(self.action.expand(len(actions), -1), actions)
        else:
            value = (batch.actions - self.action).square().mean()
        return Loss(value, {"loss": value.detach()})

    def policy(self, config=None, *, guide=None, **overrides):
        return Policy(self, config or PolicyConfig())


class Policy:
    def __init__(self, model, config):
        self.action = config.sign * model.action.detach().numpy()
        self.discrete = model.discrete

    def initial(self, num_envs, condition=None):
        return Carry(np.zeros(num_envs))

    def act(self, carry, step):
        if self.discrete:
            return carry, np.full(len(step.reward), self.action.argmax())
        return carry, np.tile(self.action, (len(step.reward), 1)).astype(np.float32)
""",
    "mean_action/recipes.yaml": """defaults:
  training: {steps: 20, batch_size: 16, learning_rate: 1.0e-1, warmup_steps: 2, tensorboard: false}
  evaluation: {episodes: 2, video: false}

small: {}
""",
    "mean_action-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: mean-action\nVersion: 1.0\n",
    "mean_action-1.0.dist-info/entry_points.txt": "[trajlm.algorithms]\nmean_action = mean_action\n",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packages")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


EXPERIMENTS = (
    *("key-to-door", "shortest-path", "return-conditioning", "credit-and-data"),
    *("mazes", "locomotion-table"),
)


def files_of_the_project() -> dict[str, bytes]:
    return {
        str(p): p.read_bytes() for p in (ROOT / "src").rglob("*") if p.suffix in (".py", ".yaml")
    }


def call(packages: Path, folder: Path, *arguments: str) -> str:
    paths = [str(ROOT / "src"), str(packages)]
    done = subprocess.run(
        [sys.executable, "-m", "trajlm.cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_algorithm_is_trained_scored_and_reported_without_an_edit(
    packages: Path, tmp_path: Path
) -> None:
    before = files_of_the_project()
    data = write_pendulum(tmp_path / "pendulum.npz")
    assert "mean_action/small" in call(packages, tmp_path, "list")
    shared = ["--data", str(data), "--data.env-id", "Pendulum-v1", "--threads", "1"]
    call(packages, tmp_path, "train", "mean_action/small", *shared, "--name", "one")
    found = json.loads(
        call(packages, tmp_path, "evaluate", "runs/one", "--episodes", "3", "--json")
    )
    assert found["protocol"]["algorithm"] == "mean_action"
    assert found["rows"][0]["episodes"] == 3
    call(packages, tmp_path, "train", "--resume", "runs/one")
    call(
        packages, tmp_path, "train", "mean_action/small", *shared, "--name", "many", "--seeds", "2"
    )
    call(packages, tmp_path, "report", "runs/one", "runs/many", "--output", "page.html")
    assert "Mean Action" in (tmp_path / "page.html").read_text()
    assert files_of_the_project() == before


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_new_algorithm_takes_part_in_an_experiment_without_an_edit(
    experiment: str, packages: Path, tmp_path: Path
) -> None:
    before = files_of_the_project()
    asked = [experiment, "--scale", "debug", "--algorithms", "mean_action/small", "--json"]
    found = json.loads(call(packages, tmp_path, "reproduce", *asked))
    assert "mean_action/small" in {row.get("recipe", row.get("name")) for row in found["rows"]}
    assert found["protocol"]["algorithms"] == ["mean_action/small"]
    assert (tmp_path / found["folder"] / "picture.png").is_file()
    assert files_of_the_project() == before
