"""Whole processes: killed, stopped, out of disk, two on one folder."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest
from safetensors.torch import load_file

from trajlm.core.errors import Interrupted
from trajlm.training.archive import CheckpointArchive
from trajlm.training.folder import read_folder

ENDLESS = {"steps": 1_000_000, "tensorboard": False}


def archive_of(folder):
    return CheckpointArchive(folder / "checkpoints", keep_last=2)


def newest(folder):
    return archive_of(folder).steps[-1:] or [0]


def lines(folder):
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def test_killed_at_any_moment_a_run_goes_on(tmp_path, start_toy):
    """Ten kill -9, most of them inside a save: there is one after each update."""
    folder, moments = tmp_path / "run", random.Random(7)
    for _ in range(10):
        before = newest(folder)
        toy = start_toy(folder, **ENDLESS, checkpoint_every=1, log_every=1, width=512)
        toy.until(lambda before=before: newest(folder) > before)
        time.sleep(moments.uniform(0.0, 0.1))
        toy.send(signal.SIGKILL)
        assert toy.wait() == -signal.SIGKILL
        assert "damaged" not in toy.stderr
    archive = archive_of(folder)
    archive.open()
    assert [archive.newest_valid()] == newest(folder)
    steps = [line["step"] for line in lines(folder)]
    assert steps == list(range(1, len(steps) + 1))  # each update is there, and once


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_sets_the_exit_code(tmp_path, start_toy, number):
    folder = tmp_path / "run"
    toy = start_toy(folder, **ENDLESS, checkpoint_every=0, delay=0.005)
    toy.until(lambda: len(lines(folder)) >= 2)
    toy.send(number)
    assert toy.wait(20) == 128 + number
    (step,) = archive_of(folder).steps
    assert step >= 10
    assert f"stopped after update {step}" in toy.stderr
    assert "--resume" in toy.stderr
    # What was saved is what an uninterrupted run has there.
    assert start_toy(tmp_path / "whole", steps=step).wait() == 0
    ours, theirs = (
        load_file(place / f"checkpoints/step-{step:08d}/model.safetensors")
        for place in (folder, tmp_path / "whole")
    )
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_second_signal_ends_at_once(tmp_path, start_toy):
    folder = tmp_path / "run"
    toy = start_toy(folder, **ENDLESS, delay=60)
    toy.until(lambda: "waits for batch" in toy.stderr)
    toy.send(signal.SIGTERM)
    toy.until(lambda: "once more" in toy.stderr)
    assert toy.wait(0.3) is None  # the step goes on
    toy.send(signal.SIGTERM)
    assert toy.wait(20) == 143
    assert archive_of(folder).steps == []


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, start_toy):
    folder = tmp_path / "run"
    assert start_toy(folder, steps=10, width=256).wait() == 0
    before = (folder / "metrics.jsonl").read_text()
    kept = read_folder(folder / "checkpoints/step-00000010")
    limit = len(kept["optimizer.safetensors"]) - 1  # the weights still fit, these do not
    assert len(kept["model.safetensors"]) < limit
    toy = start_toy(folder, steps=40, width=256, file_size_limit=limit)
    assert toy.wait() == 7
    assert "optimizer.safetensors: cannot be written (File too large)" in toy.stderr
    assert read_folder(folder / "checkpoints/step-00000010") == kept
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["last", "step-00000010"]
    text = (folder / "metrics.jsonl").read_text()
    assert text.startswith(before)
    assert text.endswith("}\n")


def test_two_processes_on_one_folder(tmp_path, start_toy):
    folder = tmp_path / "run"
    first = start_toy(folder, **ENDLESS, delay=0.05)
    first.until((folder / "metrics.jsonl").exists)
    second = start_toy(folder, steps=10)
    assert second.wait() == 7
    assert f"in use by process {first.pid} on" in second.stderr


def test_a_signal_cuts_an_evaluation_short(tmp_path):
    """The first signal ends `on_evaluate`, even one that swallows errors; the run is saved."""
    from toy_run import toy_trainer

    def evaluate(step):
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
        except Exception:
            return {"score": 0.0}

    before = signal.getsignal(signal.SIGTERM)
    trainer = toy_trainer(tmp_path, evaluate_every=10, on_evaluate=evaluate)
    with pytest.raises(Interrupted, match="stopped after update 10") as caught:
        trainer.run()
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert trainer.archive.steps == [10]
