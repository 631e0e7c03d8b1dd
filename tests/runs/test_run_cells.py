"""Trainings as cells: each kept when it is there, failures named, other commands refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pendulum_data import TINY_FLAGS
from trajlm.core.errors import StorageError
from trajlm.runs.cells import Cell, read_rows, run_cells, shares
from trajlm.runs.processes import last_step


def cell(pendulum: Path, seed: int, *, recipe: str = "decision_transformer/debug") -> Cell:
    arguments = (
        recipe,
        "--data",
        str(pendulum),
        "--seed",
        str(seed),
        "--steps",
        "3",
        *TINY_FLAGS[2:],
    )
    return Cell(keys=(recipe, "a/b c", str(seed)), arguments=arguments)


def test_cells_are_kept_failures_named_and_other_commands_refused(
    pendulum: Path, tmp_path: Path
) -> None:
    good, bad = cell(pendulum, 0), cell(pendulum, 1, recipe="decision_transformer/none")
    seen: list[str] = []
    rows, failures = run_cells(
        [bad, good],
        folder=tmp_path,
        runs=tmp_path / "runs",
        workers=2,
        kept=lambda row: seen.append(row["command"]),
    )
    assert [row["command"] for row in rows] == seen == [good.command]
    assert len(failures) == 1
    assert "ended with 2" in failures[0]
    assert "none" in failures[0]
    assert len(rows[0]["returns"]) == sum(each["episodes"] for each in rows[0]["rows"])
    assert read_rows(tmp_path / "rows.jsonl") == rows

    again, _ = run_cells(
        [good], folder=tmp_path, runs=tmp_path / "nowhere", workers=1, kept=lambda row: seen.clear()
    )
    assert again == rows
    assert seen, "it was run a second time"

    other = replace(good, arguments=(*good.arguments, "--episodes", "7"))
    with pytest.raises(StorageError, match="was made by"):
        run_cells([other], folder=tmp_path, runs=tmp_path / "runs", workers=1)


def test_a_trained_cell_is_scored_again_without_training(pendulum: Path, tmp_path: Path) -> None:
    first = cell(pendulum, 0)
    shared = {"folder": tmp_path, "runs": tmp_path / "runs", "workers": 1}
    (trained,), _ = run_cells([first], **shared)
    further = Cell(
        keys=(*first.keys, "one"),
        arguments=("--policy.target-return", "-500", "--episodes", "1", "--evaluation.no-video"),
        evaluates=first.name,
    )
    assert further.command.startswith(f"trajlm evaluate runs/{first.name} --policy")
    rows, failures = run_cells([further], **shared)
    assert not failures
    assert [each["target_return"] for each in rows[0]["rows"]] == [-500.0]
    assert len(rows[0]["returns"]) == 1
    assert rows[0]["protocol"]["updates"] == trained["protocol"]["updates"] == 3
    assert rows[0]["timing"]["steps"] == 200.0
    assert run_cells([first], **shared)[0] == [trained]
    assert shares([further], {further.keys: {}}, tmp_path)[0] == "1 of 1 evaluations"


def test_a_cells_name_is_a_folders(pendulum: Path) -> None:
    assert cell(pendulum, 3).name == "decision_transformer-debug-a-b-c-3"


def test_the_share_counts_updates_under_way(pendulum: Path, tmp_path: Path) -> None:
    one, two = cell(pendulum, 0), cell(pendulum, 1)
    assert shares([one, two], {}, tmp_path)[1] == 0.0
    (tmp_path / one.name).mkdir()
    (tmp_path / one.name / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert last_step(tmp_path / one.name / "metrics.jsonl") == 2
    words, share = shares([one, two], {two.keys: {}}, tmp_path)
    assert "1 of 2" in words
    assert share == pytest.approx((2 / 3 + 1) / 2)
