"""The program: help, lists, JSON, quiet pipes and modest terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pendulum_data import TINY_FLAGS
from trajlm import __version__
from trajlm.cli.main import COMMANDS, main
from trajlm.cli.tables import print_results

SOURCE = Path(__file__).resolve().parents[2] / "src"


def in_a_shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "trajlm": f"{sys.executable} -m trajlm.cli.main",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def run(pendulum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    recipe = ["train", "decision_transformer/debug", "--data", str(pendulum)]
    assert main([*recipe, *TINY_FLAGS, "--output", str(output), "--name", "run"]) == 0
    return output / "run"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert main([]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"trajlm {__version__}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_inside_a_destructor_still_ends_the_command(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signalled:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def work(_rest: list[str]) -> int:
        Signalled()
        time.sleep(60)
        return 0

    monkeypatch.setitem(sys.modules, "signalled_work", SimpleNamespace(main=work))
    monkeypatch.setitem(COMMANDS, "work", ("signalled_work", ""))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["work"]) == 128 + number
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr()
    assert f"trajlm {command}" in shown.out
    assert shown.err == ""


def test_the_help_of_train_has_the_algorithms_own_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "decision_transformer/debug", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--model.context-length" in shown
    assert "--policy.target-return" in shown
    assert "(default: 5)" in shown  # the recipe's own context length


def test_list_shows_recipes_and_what_can_be_collected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    recipes = [recipe for entry in found["algorithms"] for recipe in entry["recipes"]]
    assert "decision_transformer/debug" in recipes
    assert "halfcheetah/medium-expert" in found["datasets"]["to_collect"]
    assert "pointmaze-large/waypoints" in found["datasets"]["to_collect"]
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(recipe in shown for recipe in recipes)


def test_data_show_and_check_speak_json(pendulum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(pendulum), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["episodes"], shown["steps"], shown["observation"]["dims"]) == (24, 4800, 3)
    assert main(["data", "show", str(pendulum)]) == 0
    assert "return quantiles" in capsys.readouterr().out
    asked = ["--target-return", "-800", "50"]
    assert main(["data", "check", str(pendulum), "--json", *asked]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["ok"] is True
    assert {finding["rule"] for finding in checked["findings"]} >= {"D010"}


def test_train_prints_a_table_on_stdout_and_logs_on_stderr(
    pendulum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["train", "decision_transformer/debug", "--data", str(pendulum), *TINY_FLAGS]
    assert main([*recipe, "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "asked for" in shown.out
    assert "-900" in shown.out
    assert "precision:" in shown.err
    assert "precision:" not in shown.out
    (made,) = tmp_path.iterdir()
    assert made.name == "decision_transformer-debug-pendulum-seed0"
    assert main([*recipe, "--output", str(tmp_path), "--name", "json", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2


def test_run_yaml_trains_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["train", str(run / "run.yaml"), "--output", str(tmp_path), "--name", "again"]
    assert main([*again, "--json"]) == 0
    capsys.readouterr()
    files = [
        folder / "checkpoints" / "step-00000012" / "model.safetensors"
        for folder in (run, tmp_path / "again")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_evaluate_takes_targets_and_episodes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--policy.target-return", "-100", "-200", "-400", "--episodes", "3", "--seed", "7"]
    elsewhere = ["--output", str(tmp_path / "scores"), "--json"]
    assert main(["evaluate", str(run), *asked, *elsewhere]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["protocol"]["targets"] == [-100, -200, -400]
    assert results["protocol"]["evaluation_seed"] == 7
    lines = (tmp_path / "scores" / "episodes.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 3
    assert main(["evaluate", str(run), "--checkpoint", "8", "--episodes", "1", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["protocol"]["checkpoint_step"] == 8
    assert (run / "eval" / "step-00000008" / "results.json").is_file()


def test_report_writes_one_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == run / "report.html"
    assert "<html" in page.read_text()


def test_dry_run_tells_the_cost_and_writes_nothing(
    pendulum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["train", "decision_transformer/debug", "--data", str(pendulum), *TINY_FLAGS]
    assert main([*recipe, "--output", str(tmp_path / "runs"), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] > 1000
    assert found["flops_per_update"] > 0
    assert found["seconds"] == pytest.approx(12 / found["updates_per_s"])
    assert found["config"]["training"]["steps"] == 12
    assert not (tmp_path / "runs").exists()


def test_doctor_tells_versions_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["trajlm"] == __version__
    assert {extra["name"] for extra in found["extras"]} >= {"mujoco", "data", "video"}
    assert "(" in found["machine"]["precision"]


def test_a_closed_pipe_is_no_error() -> None:
    done = in_a_shell("$trajlm list | head -n 1")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    "environment",
    [
        {"NO_COLOR": "1"},
        {"COLUMNS": "20"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TERM": "dumb", "FORCE_COLOR": ""},
    ],
)
def test_modest_terminals_are_fine(environment: dict[str, str]) -> None:
    done = in_a_shell("$trajlm list && $trajlm train --help > /dev/null", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b[" not in done.stdout


def test_scores_below_ten_keep_their_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"target_return": None, "return_mean": 0.9, "return_interval": [0.75, 1.0]}
    results = {
        "protocol": {"algorithm": "a"},
        "rows": [{**row, "length_mean": 14.5, "episodes": 4}],
    }
    print_results(results)
    said = capsys.readouterr().out
    assert "0.9" in said and "0.75 to 1" in said and "14.5" in said
