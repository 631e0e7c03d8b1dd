"""SIGINT and SIGTERM in the middle of a run, and what `--resume` makes of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pendulum_data import TINY_FLAGS
from trajlm.cli.main import main

STEPS = 150
FLAGS = [*TINY_FLAGS, "--steps", str(STEPS), "--training.log-every", "1"]
FLAGS += ["--training.checkpoint-every", "100"]
SOURCE = Path(__file__).resolve().parents[2] / "src"


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trajlm.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (path.is_file() and path.stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


def weights(run: Path) -> str:
    file = run / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def train(pendulum: Path, output: Path, *more: str) -> list[str]:
    recipe = ["train", "decision_transformer/debug", "--data", str(pendulum)]
    return [*recipe, "--output", str(output), *FLAGS, *more]


def test_an_interrupted_run_goes_on_to_the_same_weights(pendulum: Path, tmp_path: Path) -> None:
    process = start(train(pendulum, tmp_path, "--name", "cut"))
    wait_for(tmp_path / "cut" / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "--resume" in errors.splitlines()[-1]
    assert not (tmp_path / "cut" / "eval").exists()
    steps = sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))
    assert steps
    assert steps[-1].name < f"step-{STEPS:08d}"

    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    assert main(train(pendulum, tmp_path, "--name", "whole")) == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").open()]
    losses = [line["step"] for line in lines if "train/loss" in line]
    assert losses == list(range(1, STEPS + 1))


def test_a_group_passes_the_signal_on_and_goes_on(pendulum: Path, tmp_path: Path) -> None:
    process = start(train(pendulum, tmp_path, "--name", "group", "--seeds", "2", "--seed", "5"))
    group = tmp_path / "group"
    wait_for(group / "seed-5" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].endswith(f"--resume {group}")
    assert not (group / "results.json").exists()
    assert not _processes_in(group)

    assert main(["train", "--resume", str(group), "--json"]) == 0
    results = json.loads((group / "results.json").read_text())
    assert results["format"] == "trajlm.group/1"
    assert results["runs"] == ["seed-5", "seed-6"]
    row = results["rows"][0]
    assert row["target_return"] == -300.0
    assert row["seeds"] == 2
    assert row["return_mean"] == sum(row["return_means"]) / 2
    assert weights(group / "seed-5") != weights(group / "seed-6")
    for seed in (5, 6):
        meta = json.loads((group / f"seed-{seed}" / "meta.json").read_text())
        assert meta["seed"] == seed
        assert meta["threads"] == 1

    assert main(["evaluate", str(group), "--episodes", "1", "--policy.target-return", "-50"]) == 0
    again = json.loads((group / "results.json").read_text())
    assert [row["target_return"] for row in again["rows"]] == [-50.0]
    scores = json.loads((group / "seed-6/eval" / f"step-{STEPS:08d}" / "results.json").read_text())
    assert scores["protocol"]["training_seed"] == 6


def _processes_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def test_a_seed_that_fails_gives_its_exit_code(pendulum: Path, tmp_path: Path) -> None:
    process = start(
        train(
            pendulum, tmp_path, "--name", "bad", "--seeds", "2", "--training.learning-rate", "1e30"
        )
    )
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 6, errors
    assert "seed 0" in errors.splitlines()[-1]
    assert "loss" in errors.splitlines()[-1]
