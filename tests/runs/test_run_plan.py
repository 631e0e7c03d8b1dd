"""`trajlm plan`: the files of a plan, that they say what happened, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("matplotlib")
pytest.importorskip("PIL")

import trajlm
from hopper_data import ENV_ID, hopper_store
from trajlm.cli.main import main
from trajlm.envs.make import make_vector
from trajlm.evaluation.bodies import Body, strip
from trajlm.report.page import build_report
from trajlm.runs import open_loop, plan
from trajlm.runs.folder import read_run
from trajlm.training.checkpoint import load_artefact

STEPS = 4
TINY = {
    "training": {"steps": 6, "checkpoint_every": 6, "tensorboard": False, "warmup_steps": 2},
    "evaluation": {"episodes": 1, "video": False},
    "policy": {"horizon": 1, "beam_width": 1, "num_samples": 1},
    "threads": 1,
}
FLAGS = [
    *("--steps", str(STEPS), "--seed", "3", "--threads", "1", "--policy.horizon", "3"),
    *("--policy.beam-width", "4", "--policy.num-samples", "2"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    done = trajlm.train(
        "trajectory_transformer/debug",
        data=hopper_store(),
        env_id=ENV_ID,
        output=output,
        name="hopper",
        overrides=TINY,
    )
    return done.folder


@pytest.fixture(scope="module")
def planned(run: Path) -> Path:
    """The folder of a plan."""
    assert main(["plan", str(run), *FLAGS]) == 0
    return run / "plans" / f"step-00000006-t-{STEPS}"


@pytest.fixture(scope="module")
def record(planned: Path) -> dict[str, Any]:
    return json.loads((planned / "plan.json").read_text())


@pytest.fixture
def scene(run: Path) -> plan.Scene:
    model = load_artefact(run / "checkpoints" / "last")
    return plan.Scene.of(model, config=read_run(run), env_id=None, facts={})


def test_a_plan_leaves_its_files(planned: Path) -> None:
    names = {path.name for path in planned.iterdir()}
    assert names == {"plan.json", "curves.png", "curves.svg", "bodies.png"}
    assert (planned / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert b"Score of each beam" in (planned / "curves.svg").read_bytes()


def test_the_record_is_whole_and_the_best_score_is_chosen(record: dict[str, Any]) -> None:
    beams, protocol = record["beams"], record["protocol"]
    scores = [beam["score"] for beam in beams]
    assert len(beams) == 4
    assert scores == sorted(scores, reverse=True)
    assert scores[record["chosen"]] == max(scores)
    for beam in beams:
        assert np.array(beam["observations"]).shape == (2, 11)
        assert np.array(beam["actions"]).shape == (3, 3)
        assert len(beam["rewards"]) == len(beam["values"]) == 3
    assert np.array(record["past"]["observations"]).shape == (STEPS + 1, 11)
    assert (protocol["env_id"], protocol["seed"], protocol["step"]) == (ENV_ID, 3, STEPS)
    assert protocol["policy"]["horizon"] == 3
    assert protocol["versions"]["mujoco"]
    times = record["milliseconds"]
    parts = sum(spent for part, spent in times.items() if part != plan.WHOLE)
    assert parts == pytest.approx(times[plan.WHOLE], rel=1e-3)
    assert {"prefill", "action tokens", "observation tokens"} <= set(times)
    assert record["names"][0] == "height (m)"
    assert record["names"][5] == "forward velocity (m/s)"


def test_the_truth_is_what_the_environment_does_with_the_chosen_actions(
    record: dict[str, Any],
) -> None:
    """From the same state: the recorded past ends in it, and the simulator repeats itself."""
    actions, truth = record["beams"][0]["actions"], record["truth"]
    vector = make_vector(ENV_ID, num_envs=1)
    physics: Any = vector.environments[0].unwrapped
    vector.reset(seeds=np.array([3]))
    present = np.array(record["past"]["observations"][-1])
    x = 0.0  # a hopper's dynamics are the same everywhere
    physics.set_state(np.concatenate([[x], present[:5]]), present[5:])
    for action, observed, reward in zip(
        actions, truth["observations"], truth["rewards"], strict=True
    ):
        step = vector.step(np.array([action], np.float32))
        np.testing.assert_allclose(step.observation[0], observed, rtol=2e-3, atol=2e-3)
        assert float(step.reward[0]) == pytest.approx(reward, rel=1e-2, abs=1e-2)


def test_the_same_command_gives_the_same_plan(
    run: Path, record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", str(run), *FLAGS, "--output", str(tmp_path / "again"), "--json"]
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    for part in ("beams", "truth", "past", "dimensions"):
        assert again[part] == record[part]
    assert Path(again["files"]["plan.json"]).parent == tmp_path / "again"


def test_the_table_names_the_best_beam_and_the_truth(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", str(run), *FLAGS, "--output", str(tmp_path), "--dimensions", "0", "5"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "0 *" in shown and "the true sum of rewards" in shown and "prefill" in shown
    assert json.loads((tmp_path / "plan.json").read_text())["dimensions"] == [0, 5]


def test_an_episode_that_ends_early_is_planned_before_its_end(
    scene: plan.Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, folder = plan.plan_once(scene, steps=900, seed=3, output=tmp_path / "t-{steps}")
    at = found["protocol"]["step"]
    assert 0 < at < 900
    assert folder.name == f"t-{at}"
    assert f"planning at step {at}" in caplog.text
    assert len(found["past"]["observations"]) == min(at, plan.PAST_SHOWN) + 1
    assert found["past"]["first_step"] == max(0, at - plan.PAST_SHOWN)


def test_an_open_loop_prediction_begins_where_the_recording_is(
    scene: plan.Scene, tmp_path: Path
) -> None:
    store = hopper_store()
    found, folder = open_loop.open_loop(scene, store, start=3, horizon=4, output=tmp_path)
    assert found["protocol"]["held_out"]
    episode = store.episode(found["protocol"]["episode"])
    recorded = episode.columns["observations"]
    np.testing.assert_allclose(found["past"]["observations"][-1], recorded[3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["truth"]["observations"][0], recorded[4], rtol=1e-4, atol=1e-5)
    assert np.array(found["beams"][0]["observations"]).shape == (3, 11)
    assert (folder / "open_loop.json").is_file()


def test_a_memory_of_recorded_steps_is_the_memory_of_acted_ones(scene: plan.Scene) -> None:
    """What `open_loop` builds from columns equals what the policy built while it acted."""
    policy, environment = scene.policy, scene.environment
    layout = policy.model.layout
    carry, step, rows = policy.initial(1), environment.reset(seeds=np.array([0])), []
    for _ in range(4):
        row = np.zeros(layout.size, np.float32)
        row[: layout.observation_size] = step.observation[0]
        carry, action = policy.act(carry, step)
        step = environment.step(action)
        row[layout.actions] = action[0]
        row[layout.reward] = step.reward[0]
        rows.append(row)
    built = open_loop._remembered(policy, np.stack(rows))
    for name in ("past", "observation", "action", "steps"):
        assert getattr(built, name).tolist() == getattr(carry, name).tolist(), name


def test_a_body_is_where_its_observations_say() -> None:
    vector = make_vector(ENV_ID, num_envs=1)
    body = Body.of(vector)
    assert body is not None
    physics: Any = vector.environments[0].unwrapped
    observed, places = [vector.reset(seeds=np.array([0])).observation[0]], [0.0]
    start = float(physics.data.qpos[0])
    for _ in range(20):
        observed.append(vector.step(np.full((1, 3), 0.2, np.float32)).observation[0])
        places.append(float(physics.data.qpos[0]) - start)
    poses = body.poses(np.stack(observed), x=0.0)
    np.testing.assert_allclose([pose.qpos[0] for pose in poses], places, atol=5e-3)
    np.testing.assert_allclose(poses[-1].qpos[1:], physics.data.qpos[1:], atol=1e-5)


def test_what_is_no_planar_body_has_none() -> None:
    assert Body.of(make_vector("Pendulum-v1", num_envs=1)) is None


def test_the_video_shows_plan_and_truth(scene: plan.Scene, tmp_path: Path) -> None:
    film = plan.film(scene, seed=0, max_steps=3, path=tmp_path / "plan.mp4")
    assert film is not None and film.stat().st_size > 0


def test_a_horizon_that_nobody_named(scene: plan.Scene, tmp_path: Path) -> None:
    """A policy's own, as a converted model has it: None takes what the block has room for."""
    config = replace(scene.policy.config, horizon=None)
    scene = replace(scene, policy=replace(scene.policy, config=config))
    assert scene.policy.horizon == 3
    assert plan.film(scene, seed=0, max_steps=4, path=tmp_path / "plan.mp4") is not None
    # Past the episode's end: the plan is made a horizon before it.
    record, _ = plan.plan_once(scene, steps=10_000, seed=3, output=tmp_path / "{steps}")
    assert len(record["truth"]["rewards"]) == 3
    assert len(record["beams"][0]["actions"]) == 3


def test_the_report_shows_the_plans(run: Path, planned: Path, tmp_path: Path) -> None:
    page = build_report([run], tmp_path / "report.html").read_text()
    assert 'id="plan"' in page and 'href="#plan"' in page
    assert "A plan at step 4 of the episode with seed 3, after 6 updates" in page
    assert "data:image/png;base64," in page
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("plans"), symlinks=True)
    assert 'id="plan"' not in build_report([bare], tmp_path / "bare.html").read_text()
    broken = bare / "plans" / "step-00000006-t-0"
    broken.mkdir(parents=True)
    (broken / "plan.json").write_text('{"format": "trajlm.plan/1", "names": 3}')
    assert "is damaged" in build_report([bare], tmp_path / "bare.html").read_text()


def test_what_has_no_body_is_planned_without_one(pendulum: Path, tmp_path: Path) -> None:
    recipe = "trajectory_transformer/debug"
    done = trajlm.train(
        recipe,
        data=str(pendulum),
        env_id="Pendulum-v1",
        output=tmp_path,
        name="run",
        overrides=TINY,
    )
    stale = done.folder / "plans" / "step-00000006-t-2" / "open_loop.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    command = ["plan", str(done.folder), *FLAGS[2:], "--steps", "2", "--video"]
    assert main(command) == 0
    names = {path.name for path in stale.parent.iterdir()}
    assert names == {"plan.json", "curves.png", "curves.svg"}
    assert main([*command, "--open-loop"]) == 0
    found = json.loads(stale.with_suffix(".json").read_text())
    assert found["names"][0] == "observation 0"
    assert found["protocol"]["held_out"]
    (stale.parent / "plan.gif").write_bytes(b"GIF89a")
    assert main(["report", str(done.folder)]) == 0
    assert "data:image/gif;base64," in (done.folder / "report.html").read_text()


def test_bodies_are_drawn_without_gl(scene: plan.Scene, tmp_path: Path) -> None:
    from PIL import Image

    assert scene.body is not None
    rows = np.zeros((3, 11))
    rows[:, 0] = 1.25
    leaning = rows + np.eye(11)[1] * 0.3
    true = [(np.concatenate([[0.0], row[:5]]), row[5:]) for row in rows[:2]]
    path = strip(scene.body, planned=[rows, leaning], true=true, path=tmp_path / "b.png", gl=False)
    alone = strip(scene.body, planned=[rows], true=true, path=tmp_path / "a.png", gl=False)
    assert path is not None and alone is not None
    both, one = (np.asarray(Image.open(file)).astype(int) for file in (path, alone))
    half = len(both) // 2
    assert (both[:half] != one[:half]).any()
    assert (both[half + 2 :] == one[half + 2 :]).all()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--dimensions", "11"], 2, "dimensions: 11 is not in 0..10"),
        (["--env-id", "Hoper-v5"], 5, "not registered"),
        (["--env-id", "HalfCheetah-v5"], 5, "HalfCheetah-v5"),
        (["--policy.horizon", "9"], 2, "horizon: "),
        (["--steps", "-1"], 2, "--steps"),
        (["--checkpoint", "77"], 4, "no checkpoint '77'"),
        (["--open-loop"], 2, "handed over in Python"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    run: Path,
    tmp_path: Path,
    flags: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["plan", str(run), "--steps", "1", "--output", str(tmp_path / "out"), *flags]
    assert main(command) == code
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("trajlm: ") and words in said


def test_an_algorithm_that_does_not_plan_names_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text("extends: decision_transformer/debug\n")
    assert main(["plan", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "decision_transformer does not plan" in said and "trajectory_transformer" in said
    assert main(["plan", str(tmp_path / "nowhere")]) == 4
    assert main(["plan"]) == 2
