"""From data to a scored model through the Python door, and what a run leaves in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import trajlm
from pendulum_data import TINY, pendulum_arrays
from trajlm.core.config import merge
from trajlm.core.errors import DataError, StorageError, UsageError
from trajlm.data.sources.arrays import from_arrays
from trajlm.data.store import TrajectoryStore
from trajlm.runs.assembly import hold_out
from trajlm.runs.config import resolve
from trajlm.runs.folder import read_json
from trajlm.runs.offline import Run, resume

RECIPE = "decision_transformer/debug"


def store_of(episodes: int = 24, **facts: str) -> TrajectoryStore:
    return from_arrays(pendulum_arrays(episodes), name="pendulum", **facts)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("runs")
    store = store_of(env_id="Pendulum-v1")
    return trajlm.train(RECIPE, data=store, seed=1, output=output, name="first", overrides=TINY)


def test_a_run_leaves_what_was_done_and_with_what(run: Run) -> None:
    there = {path.name for path in run.folder.iterdir()}
    assert {"run.yaml", "meta.json", "dataset.json", "metrics.jsonl", "checkpoints"} <= there
    assert {"train.log", "eval"} <= there
    assert resolve(str(run.folder / "run.yaml")) == run.config
    meta = json.loads((run.folder / "meta.json").read_text())
    assert meta["seed"] == 1
    assert meta["threads"] == 1
    assert meta["versions"]["torch"]
    assert meta["precision"]["reason"]
    assert meta["training"]["step"] == 12
    assert meta["training"]["updates_per_s"] > 0
    assert json.loads((run.folder / "dataset.json").read_text())["episodes"] == 24
    held_out = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
    assert any("validation/loss" in line for line in held_out)


def test_a_run_is_scored_at_its_targets(run: Run) -> None:
    assert run.results is not None
    assert [row["target_return"] for row in run.results["rows"]] == [-300.0, -900.0]
    assert all(-2000 < row["return_mean"] < 0 for row in run.results["rows"])
    protocol = run.results["protocol"]
    assert protocol["recipe"] == RECIPE
    assert protocol["training_seed"] == 1
    assert protocol["checkpoint_step"] == protocol["updates"] == 12
    assert protocol["data_hash"] == run.model.spec.data_hash
    written = json.loads((run.folder / "eval" / "step-00000012" / "results.json").read_text())
    assert written["rows"] == json.loads(json.dumps(run.results["rows"]))


def test_the_door_evaluates_saves_and_loads(run: Run, tmp_path: Path) -> None:
    scores = trajlm.evaluate(run.model, target_return=[-300, -900], episodes=2, seed=1000)
    assert run.results is not None
    # The same weights, episodes and seeds, on one thread: the same returns.
    means = [row["return_mean"] for row in scores.rows]
    assert means == [row["return_mean"] for row in run.results["rows"]]
    trajlm.save(run.model, tmp_path / "saved")
    again = trajlm.evaluate(
        trajlm.load(tmp_path / "saved"), target_return=[-300, -900], episodes=2, seed=1000
    )
    assert [row["return_mean"] for row in again.rows] == means
    single = trajlm.evaluate(run.model, target_return=-300.0, episodes=2, seed=1000)
    assert single.rows[0]["target_return"] == -300.0


def test_scores_along_the_way_and_at_the_end_name_their_checkpoints(tmp_path: Path) -> None:
    along = merge(TINY, {"training": {"evaluate_every": 6}})
    done = trajlm.train(
        RECIPE, data=store_of(env_id="Pendulum-v1"), output=tmp_path, overrides=along
    )
    names = {
        path.parent.name: json.loads(path.read_text())["protocol"]["checkpoint"]
        for path in done.folder.glob("eval/*/results.json")
    }
    assert names == {"step-00000006": "6", "step-00000012": "last"}
    assert done.results is not None
    assert done.results["protocol"]["checkpoint"] == "last"


def test_targets_by_name_are_scored_as_returns_of_the_data(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    named = trajlm.evaluate(run.model, target_return=["max", "q50"], episodes=1)
    spec = run.model.spec
    asked = [row["target_return"] for row in named.rows]
    assert asked == [spec.return_max, spec.return_quantiles[10]]
    assert "outside the returns in the data" not in caplog.text
    trajlm.evaluate(run.model, target_return=spec.return_max + 1.0, episodes=1)
    assert "outside the returns in the data" in caplog.text


def test_a_delayed_reward_travels_from_the_data_to_the_policy(tmp_path: Path) -> None:
    late = trajlm.train(
        RECIPE,
        data=store_of(),
        output=tmp_path,
        overrides=merge(
            TINY, {"data": {"reward": "delayed"}, "policy": {"target_return": ["q50"]}}
        ),
    )
    assert late.model.spec.delayed_reward
    assert trajlm.load(late.folder).spec.delayed_reward
    resumed = resume(late.folder, store=store_of())
    assert resumed.training.step == late.training.step


def test_a_folder_that_exists_is_left_alone(run: Run) -> None:
    before = (run.folder / "meta.json").read_bytes()
    with pytest.raises(StorageError, match="--resume"):
        trajlm.train(
            RECIPE, data=store_of(), output=run.folder.parent, name="first", overrides=TINY
        )
    assert (run.folder / "meta.json").read_bytes() == before


def test_a_finished_run_is_only_read(run: Run) -> None:
    checkpoint = run.folder / "checkpoints" / "step-00000012" / "model.safetensors"
    results = run.folder / "eval" / "step-00000012" / "results.json"
    before = (checkpoint.stat().st_mtime_ns, results.stat().st_mtime_ns)
    again = resume(run.folder, store=store_of(env_id="Pendulum-v1"))
    assert (checkpoint.stat().st_mtime_ns, results.stat().st_mtime_ns) == before
    assert again.results is not None
    assert again.training.step == 12
    meta = json.loads((run.folder / "meta.json").read_text())
    assert meta["training"]["updates_per_s"] > 0


def test_a_run_goes_on_with_its_own_data_only(run: Run) -> None:
    with pytest.raises(DataError, match="own dataset"):
        resume(run.folder, store=store_of(25, env_id="Pendulum-v1"))


def test_without_an_environment_the_run_ends_with_the_way_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = trajlm.train(RECIPE, data=store_of(), output=tmp_path, name="blind", overrides=TINY)
    assert done.results is None
    assert "trajlm evaluate" in (tmp_path / "blind" / "train.log").read_text()
    with pytest.raises(UsageError, match=r"--data\.env-id"):
        trajlm.evaluate(done.model, target_return=-300)
    scores = trajlm.evaluate(done.model, target_return=-300, episodes=1, env_id="Pendulum-v1")
    assert scores.rows[0]["episodes"] == 1


def test_nothing_is_written_where_the_data_is_bad(tmp_path: Path) -> None:
    arrays = pendulum_arrays()
    arrays["rewards"][777] = np.nan
    with pytest.raises(DataError, match="episode 3, step 177"):
        trajlm.train(
            RECIPE, data=from_arrays(arrays), output=tmp_path / "runs", name="x", overrides=TINY
        )
    assert not (tmp_path / "runs").exists()


def test_the_same_seed_gives_the_same_weights(run: Run, tmp_path: Path) -> None:
    def weights(folder: Path) -> bytes:
        return (folder / "checkpoints" / "step-00000012" / "model.safetensors").read_bytes()

    store = store_of(env_id="Pendulum-v1")
    again, other = (
        trajlm.train(
            RECIPE, data=store, seed=seed, output=tmp_path, name=f"s{seed}", overrides=TINY
        )
        for seed in (1, 2)
    )
    assert weights(again.folder) == weights(run.folder)
    assert weights(other.folder) != weights(run.folder)


def test_held_out_episodes_are_finished_and_the_same_for_every_seed() -> None:
    kept, held_out = hold_out(store_of(40), fraction=0.05)
    assert len(held_out) == 2
    assert sorted([*kept, *held_out]) == list(range(40))
    assert len(hold_out(store_of(20), fraction=0.01)[1]) == 1
    assert len(hold_out(store_of(19), fraction=0.05)[1]) == 0
    assert len(hold_out(store_of(40), fraction=0.0)[1]) == 0
    arrays = pendulum_arrays(40)
    arrays["timeouts"][-1] = False  # the last episode is unfinished
    for fraction in (0.1, 0.5, 0.9):
        assert 39 not in hold_out(from_arrays(arrays), fraction=fraction)[1]


def test_the_held_out_loss_is_known_by_the_return_of_the_episode(run: Run) -> None:
    rows = read_json(run.folder / "meta.json")["held_out"]
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    last = [line["validation/loss"] for line in lines if "validation/loss" in line][-1]
    assert rows, "the run holds episodes out"
    assert all(row["low"] <= row["high"] for row in rows)
    episodes = np.array([row["episodes"] for row in rows])
    mean = float((np.array([row["loss"] for row in rows]) * episodes).sum() / episodes.sum())
    assert mean == pytest.approx(last, rel=1e-4)  # the episodes are of equal length
