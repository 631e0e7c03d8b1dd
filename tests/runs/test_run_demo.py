"""The demo at debug scale, what a later call takes over, and how it keeps its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trajlm.cli.main import main
from trajlm.core.errors import Interrupted
from trajlm.runs import demo_planning
from trajlm.runs.config import resolve
from trajlm.runs.demo import SCALES, within
from trajlm.runs.demo_planning import PLANNING_SCALES
from trajlm.runs.pace import FEWEST_UPDATES, Pace

pytest.importorskip("mujoco")
pytest.importorskip("h5py")


def changed(files: dict[Path, int]) -> list[Path]:
    return [path for path, before in files.items() if path.stat().st_mtime_ns != before]


def test_the_demo_goes_from_data_to_page_and_each_call_takes_over_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["demo", "--scale", "debug", "--output", str(tmp_path)]
    folder, planning = tmp_path / "demo-debug", tmp_path / "demo-debug-plan"
    page = folder / "report.html"

    def interrupted(*arguments: object, **options: object) -> None:
        raise Interrupted("stopped", signal_number=15)

    with monkeypatch.context() as patch:
        patch.setattr(demo_planning, "plan_once", interrupted)
        assert main(command) == 128 + 15
    capsys.readouterr()
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert 'id="plan"' not in page.read_text()
    kept = [*folder.glob("eval/*/*"), *tmp_path.glob("*/checkpoints/last/model.safetensors")]
    assert len(kept) == 5  # scores, episodes, a film; two models
    before = {path: path.stat().st_mtime_ns for path in kept}

    assert main([*command, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    files, planned = second["files"], second["planning"]
    assert changed(before) == []
    assert len(second["rows"]) == 4
    assert {row["env_id"] for row in second["rows"]} == {"HalfCheetah-v5"}
    assert all(row["dataset_score"] is not None for row in second["rows"])
    assert second["demo"]["updates"] == second["demo"]["wanted"] == SCALES["debug"].updates
    assert planned["updates"] == planned["wanted"] == PLANNING_SCALES["debug"].updates
    assert len(planned["accuracy"]) == 17 + 6 + 2
    assert all(0 <= share <= 1 for share in planned["accuracy"].values())
    assert [row["length_mean"] for row in planned["results"]["rows"]] == [1000.0]
    assert {path.name for path in Path(files["plans"]).iterdir()} >= {"plan.json", "open_loop.json"}
    assert "A plan at step 6" in page.read_text()
    assert "Open loop from step 6 of held-out episode" in page.read_text()

    # All is there but the scores of plans, for which there is no time.
    (scores,) = planning.glob("eval/*/results.json")
    scores.unlink()
    before = {path: path.stat().st_mtime_ns for path in [*kept, *Path(files["plans"]).iterdir()]}
    assert main([*command, "--time-budget", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert changed(before) == []
    assert not scores.exists()
    assert "report.html" in shown
    assert "30 updates" in shown
    assert "worst slot" in shown
    assert "not scored" in shown


def test_the_demo_makes_fewer_updates_where_time_is_short() -> None:
    config = resolve(
        "decision_transformer/halfcheetah", {"training": {"steps": 4000, "warmup_steps": 400}}
    )
    pace = Pace(updates_per_s=10.0, evaluation_seconds=30.0)
    assert within(config, pace, seconds=1000.0).training.steps == 4000
    assert within(config, pace, seconds=1000.0).evaluation.episodes == config.evaluation.episodes
    short = within(config, pace, seconds=160.0).training
    assert short.steps == 850  # 100 s are left for updates, of which 85 count
    assert short.warmup_steps == 85
    assert short.time_limit == 100.0
    slow = within(config, Pace(updates_per_s=0.01, evaluation_seconds=90.0), seconds=100.0)
    assert slow.training.steps == 10
    assert slow.evaluation.episodes == config.evaluation.episodes // 3


def test_planning_keeps_time_for_whole_episodes_or_for_none() -> None:
    config = resolve(
        "trajectory_transformer/halfcheetah",
        {"training": {"steps": 1000}, "evaluation": {"episodes": 1, "video_steps": 500}},
    )
    pace = Pace(updates_per_s=2.0, evaluation_seconds=80.0)
    assert demo_planning.within(config, pace, seconds=2000.0).training.steps == 1000
    scored = demo_planning.within(config, pace, seconds=300.0).training
    assert scored.steps == 238  # without 80 s of scores, 40 s of film and 40 s of the rest
    unscored = demo_planning.within(config, pace, seconds=240.0).training
    assert unscored.steps == 340  # an episode is over its share of the time
    assert demo_planning.within(config, pace, seconds=1.0).training.steps == FEWEST_UPDATES
