"""The README's Python is run as it is printed, on small data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import trajlm
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.runs.config import resolve

README = Path(__file__).resolve().parent.parent / "README.md"


def example(name: str, **replacements: str) -> str:
    """The block under `<!-- example: NAME -->`; every replacement must apply."""
    match = re.search(rf"<!-- example: {name} -->\s*```python\n(.*?)```", README.read_text(), re.S)
    assert match, f"README.md has no example {name!r}"
    code = match[1]
    for old, new in replacements.items():
        assert old in code, f"the example {name!r} no longer says {old!r}"
        code = code.replace(old, new)
    return code


def run_example(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), names)
    return names


def cheetah_store() -> TrajectoryStore:
    """Three random episodes of 20 steps in HalfCheetah's spaces."""
    generator = np.random.default_rng(0)
    ones = (1.0,) * 6
    return TrajectoryStore.from_trajectories(
        [
            Trajectory(
                columns={
                    "observations": generator.normal(size=(21, 17)),
                    "actions": generator.uniform(-1, 1, size=(20, 6)).astype(np.float32),
                    "rewards": generator.normal(size=20),
                },
                terminated=False,
                truncated=True,
            )
            for _ in range(3)
        ],
        observation_space=Box(shape=(17,), dtype="float64"),
        action_space=Box(shape=(6,), low=tuple(-one for one in ones), high=ones),
        env_id="HalfCheetah-v5",
        name="random",
    )


def test_the_loop_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mujoco")
    run = resolve("decision_transformer/debug")
    algorithm: Any = run.entry.algorithm_class
    prepared = algorithm.prepare(run.model, cheetah_store())
    model = algorithm.build(run.model, prepared.store.spec, prepared.fitted)
    trajlm.save(model, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gymnasium.registry["HalfCheetah-v5"], "max_episode_steps", 50)
    names = run_example(example("loop"))
    assert np.isfinite(float(capsys.readouterr().out))
    assert int(names["carry"].steps[0]) == 50


def test_the_facade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    trajlm.collect_dataset("halfcheetah", "medium-expert", steps=2000, seed=0, processes=1)
    # Evaluation's episodes end after 20 steps: this is about the lines, not the scores.
    monkeypatch.setattr(gymnasium.registry["HalfCheetah-v5"], "max_episode_steps", 20)
    code = example(
        "facade",
        **{
            "decision_transformer/halfcheetah": "decision_transformer/debug",
            "steps=10_000": "steps=3, overrides={'evaluation': {'video': False}}",
            "episodes=20": "episodes=1",
        },
    )
    names = run_example(code)
    assert [row["target_return"] for row in names["results"].rows] == [5500.0, 2000.0]
    assert (tmp_path / "my-cheetah" / "model.safetensors").is_file()


def test_every_command_in_the_readme_exists() -> None:
    from trajlm.cli.main import COMMANDS

    named = set(re.findall(r"\btrajlm ([a-z]+)\b", README.read_text()))
    assert named >= {"train", "evaluate", "collect", "report", "demo"}
    assert named <= set(COMMANDS), named - set(COMMANDS)
