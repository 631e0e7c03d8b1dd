"""The demo at debug scale, what a second call takes over, and how it keeps its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trajlm.cli.main import main
from trajlm.runs.config import resolve
from trajlm.runs.demo import SCALES, Pace, within

pytest.importorskip("mujoco")
pytest.importorskip("h5py")


def test_the_demo_goes_from_data_to_page_and_takes_over_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["demo", "--scale", "debug", "--output", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    files = first["files"]
    assert len(first["rows"]) == 4
    assert {row["env_id"] for row in first["rows"]} == {"HalfCheetah-v5"}
    assert all(row["dataset_score"] is not None for row in first["rows"])
    assert first["demo"]["updates"] == first["demo"]["wanted"] == SCALES["debug"].updates
    page = Path(files["report"])
    assert page.read_text().startswith("<!DOCTYPE html>")
    data = Path(files["data"]) / "data" / "main_data.hdf5"
    checkpoint = tmp_path / "demo-debug" / "checkpoints" / "last" / "model.safetensors"
    kept = [data, checkpoint, *Path(files["run"]).glob("eval/*/*")]
    before = [path.stat().st_mtime_ns for path in kept]

    assert main(command) == 0
    shown = capsys.readouterr()
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert "report.html" in shown.out
    assert "30 updates" in shown.out


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
