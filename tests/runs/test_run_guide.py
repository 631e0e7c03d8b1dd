"""`--guide RUN`: a run's critic in the search of another run, and the guides that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trajlm
from trajlm.cli.main import main
from trajlm.core.errors import CheckpointError, UsageError
from trajlm.data.sources.synthetic import synthetic
from trajlm.evaluation.group import group_rows
from trajlm.runs.folder import read_run
from trajlm.runs.guide import guide_of, load_guide
from trajlm.training.checkpoint import load_artefact, save_artefact

TINY = {
    "training": {"steps": 4, "checkpoint_every": 4, "tensorboard": False, "warmup_steps": 2},
    "evaluation": {"episodes": 1, "video": False},
    "threads": 1,
}
PLANNER = {"policy": {"horizon": 1, "beam_width": 2, "num_samples": 2, "replan_every": 1}}


def train(recipe: str, data: Any, root: Path, **overrides: Any) -> Path:
    """The folder of a run of a few updates."""
    run = trajlm.train(
        recipe, data=data, env_id="Pendulum-v1", output=root, overrides={**TINY, **overrides}
    )
    return run.folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def planner(root: Path, pendulum: Path) -> Path:
    return train("trajectory_transformer/debug", str(pendulum), root, **PLANNER)


@pytest.fixture(scope="module")
def critic(root: Path, pendulum: Path) -> Path:
    drop = {"model": {"without_next": "drop"}}
    return train("implicit_q_learning/debug", str(pendulum), root, **drop)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "eval/step-00000004/results.json").read_text())


def test_evaluate_and_plan_take_a_guide(
    planner: Path, critic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = results(planner)
    assert main(["evaluate", str(planner), "--guide", str(critic), "--threads", "1"]) == 0
    guided = results(planner)
    assert guided["protocol"]["guide"] == "implicit_q_learning/debug"
    assert guided["protocol"]["guide_checkpoint"] == "step-00000004"
    assert "guide" not in plain["protocol"]
    assert guided["rows"][0]["return_mean"] != plain["rows"][0]["return_mean"]
    with pytest.raises(ValueError, match="guide None and implicit_q_learning/debug"):
        group_rows([plain, guided])
    capsys.readouterr()
    flags = ["--steps", "2", "--guide", str(critic), "--json", "--threads", "1"]
    assert main(["plan", str(planner), *flags]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["protocol"]["guide"] == "implicit_q_learning/debug"
    seen = np.array(record["past"]["observations"][-1], np.float32)
    model, guide = (load_artefact(run / "checkpoints/last") for run in (planner, critic))
    tokens = model.discretizer.encode(torch.from_numpy(seen)[None])
    shown = model.discretizer.decode(tokens)
    for beam in record["beams"]:
        said = guide.critic().value(shown, torch.tensor(beam["actions"][:1]))
        assert beam["score"] == pytest.approx(float(said), rel=1e-3, abs=1e-3)


def test_a_resumed_run_does_not_take_guided_scores_for_its_own(planner: Path, critic: Path) -> None:
    assert main(["evaluate", str(planner), "--guide", str(critic), "--threads", "1"]) == 0
    assert main(["train", "--resume", str(planner)]) == 0
    assert "guide" not in results(planner)["protocol"]


def test_python_takes_a_folder_or_a_critic(planner: Path, critic: Path) -> None:
    model, other = (load_artefact(run / "checkpoints/last") for run in (planner, critic))
    found = trajlm.evaluate(
        model,
        guide=other.critic(),
        episodes=1,
        policy=read_run(planner).policy,
        env_id="Pendulum-v1",
    )
    assert found.protocol["guide"].startswith("trajlm.algorithms.implicit_q_learning")
    guide = guide_of(str(critic), model=model)
    rows = np.full((2, 3), 0.5), np.full((2, 1), 0.5)
    assert guide.facts["guide"] == "implicit_q_learning/debug"
    assert guide.critic.value(*rows).tolist() == other.value(*rows).tolist()


def test_guides_that_do_not_fit_are_refused(
    planner: Path, critic: Path, pendulum: Path, tmp_path: Path
) -> None:
    model = load_artefact(planner / "checkpoints/last")
    cloner = train("behavior_cloning/debug", str(pendulum), tmp_path)
    with pytest.raises(UsageError, match=r"behavior_cloning offers no critic; .* implicit_q_lear"):
        load_guide(cloner, model=model)
    box = synthetic("box", episodes=8, seed=0)
    entry = load_artefact(critic / "checkpoints/last")
    other = type(entry).build(entry.config, box.spec, {})
    save_artefact(other, tmp_path / "other")
    with pytest.raises(UsageError, match=r"observations Box\(4,\), the model on Box\(3,\)"):
        load_guide(tmp_path / "other", model=model)
    with pytest.raises(CheckpointError):
        load_guide(tmp_path / "nothing", model=model)
    with pytest.raises(UsageError, match="takes no guide"):
        trajlm.evaluate(load_artefact(cloner / "checkpoints/last"), guide=critic, episodes=1,
                        env_id="Pendulum-v1")  # fmt: skip


def test_a_guide_with_nan_in_its_weights_is_refused_in_one_line(
    planner: Path, critic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_artefact(critic / "checkpoints/last")
    with torch.no_grad():
        model.targets[0].body[0].weight[0, 0] = torch.nan
    save_artefact(model, tmp_path / "broken")
    shutil.copytree(planner, tmp_path / "run", symlinks=True)
    status = main(["evaluate", str(tmp_path / "run"), "--guide", str(tmp_path / "broken")])
    assert status == CheckpointError.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "broken" in line and "targets.0.body.0.weight" in line


def test_another_discount_is_warned_of(
    planner: Path, root: Path, pendulum: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"model": {"without_next": "drop", "discount": 0.9}}
    other = train("implicit_q_learning/debug", str(pendulum), root / "far", **facts)
    load_guide(other, model=load_artefact(planner / "checkpoints/last"))
    assert "its discount is 0.9, the model's 0.99" in caplog.text
