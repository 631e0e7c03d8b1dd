"""Experiments from end to end at `debug` scale, stopped at several moments on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from trajlm.core.formats import REPRODUCTION_FORMAT
from trajlm.reproduce import catalogue

SOURCE = Path(__file__).resolve().parents[2] / "src"
CONDITIONING = [
    "return-conditioning",
    "--scale",
    "debug",
    "--algorithms",
    "decision_transformer/debug",
]
DATA = "data/trajlm/hopper/replay-v0/data/main_data.hdf5"


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trajlm.cli.main", "reproduce", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and hands that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 900
    while not there():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def without_time(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key not in ("seconds", "folder")}


def trainings_of(folder: Path) -> list[str]:
    """Commands of processes that write below `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
            there = (path.parent / "cwd").resolve()
        except OSError:
            continue
        if "train" in words and there == folder.resolve():
            found.append(" ".join(words))
    return found


def test_stopped_at_several_moments_a_second_call_goes_on(tmp_path: Path) -> None:
    """SIGINT while data are made, SIGKILL in training, SIGTERM after the first row: the numbers are
    those of a run that nothing stopped."""
    run = tmp_path / "runs" / "reproduce" / "return-conditioning-debug"

    process = start(CONDITIONING, tmp_path)
    wait_until(lambda: (run / DATA).is_file(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 130, process.communicate()[1]
    assert not (run / "results.json").exists()

    process = start([*CONDITIONING, "--workers", "1"], tmp_path)
    wait_until(lambda: any(run.glob("runs/*/metrics.jsonl")), process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 120
    while trainings_of(tmp_path):  # its training ends by itself
        assert time.monotonic() < deadline, trainings_of(tmp_path)
        time.sleep(0.1)

    process = start([*CONDITIONING, "--workers", "1"], tmp_path)
    wait_until(lambda: (run / "rows.jsonl").is_file(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) in (143, 0), process.communicate()[1]
    kept = (run / "rows.jsonl").read_text().splitlines()[0]

    process = start([*CONDITIONING, "--json"], tmp_path)
    told, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert (run / "rows.jsonl").read_text().splitlines()[0] == kept

    whole = start([*CONDITIONING, "--json", "--output", "whole"], tmp_path)
    unbroken, errors = whole.communicate(timeout=900)
    assert whole.returncode == 0, errors
    assert json.loads(told)["rows"] == json.loads(unbroken)["rows"]
    assert json.loads(told)["data"] == json.loads(unbroken)["data"]


@pytest.mark.parametrize("name", catalogue.names())
def test_an_experiment_runs_from_end_to_end(name: str, tmp_path: Path) -> None:
    experiment = catalogue.experiment(name)
    arguments = [name, "--scale", "debug", "--json", "--algorithms", *experiment.algorithms[:2]]
    first = start(arguments, tmp_path)
    told, errors = first.communicate(timeout=900)
    assert first.returncode == 0, errors
    results = json.loads(told)
    run = tmp_path / results["folder"]
    assert json.loads((run / "results.json").read_text()) == {
        key: value for key, value in results.items() if key != "folder"
    }
    assert results["format"] == REPRODUCTION_FORMAT
    assert results["held"] == "untested"
    assert results["rows"] and results["tables"] and results["commands"] and results["verdict"]
    assert results["made_by"][0]["machine"]
    assert all(len(each) == 64 for each in results["data"].values())
    assert 1_000 < (run / "picture.png").stat().st_size < 500_000
    for name in experiment.further:
        assert 0 < (run / name).stat().st_size < (3_000_000 if name.endswith(".gif") else 500_000)
    drawing = (run / "picture.svg").read_bytes()
    assert ElementTree.fromstring(drawing).tag.endswith("svg")

    rows = run / "rows.jsonl"
    before = rows.stat().st_mtime_ns if rows.is_file() else 0
    second = start(arguments, tmp_path)
    told, errors = second.communicate(timeout=900)
    assert second.returncode == 0, errors
    assert without_time(json.loads(told)) == without_time(results)
    assert (rows.stat().st_mtime_ns if rows.is_file() else 0) == before
    assert (run / "picture.svg").read_bytes() == drawing

    protocol = json.loads((run / "protocol.json").read_text())
    (run / "protocol.json").write_text(json.dumps({**protocol, "version": 0}))
    other = start(arguments, tmp_path)
    _, errors = other.communicate(timeout=900)
    assert other.returncode == 7
    assert "version 0, not" in errors
