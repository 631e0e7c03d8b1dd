"""Planning beside cloning and the data: its trainings, its differences, its words, its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trajlm.core.files import json_bytes
from trajlm.reproduce import catalogue, selection
from trajlm.reproduce.experiments import offline_planning as planning
from trajlm.reproduce.reproduce import prepare, reproduce
from trajlm.runs.cells import Cell, write_rows

NAME = "offline-planning"
CLONING, PLANNER = catalogue.experiment(NAME).algorithms


def row(recipe: str, seeds: Sequence[float], **more: Any) -> dict[str, Any]:
    mean = sum(seeds) / len(seeds)
    return {
        "dataset": "hopper/medium", "recipe": recipe, "seeds": list(seeds), "mean": mean,
        "interval": None, "data_mean": 100.0, **more,
    }  # fmt: skip


def keep(folder: Path, cells: Sequence[Cell], returns: Sequence[float]) -> None:
    """Rows of finished trainings, and what the data return: 100."""
    rows = [
        {
            "keys": list(cell.keys),
            "command": cell.command,
            "updates_per_s": 2.0,
            "protocol": {"updates": 4, "episodes": 1, "training_seed": int(cell.keys[-1])},
            "rows": [{"target_return": None, "return_mean": value}],
            "timing": {"total_seconds": 1.0, "steps": 500},
        }
        for cell, value in zip(cells, returns, strict=True)
    ]
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    value = {"mean": 100.0, "interval": [90.0, 110.0], "episodes": 4}
    part = {"key": "data-hopper-medium", "value": value}
    (folder / "parts" / "data-hopper-medium.json").write_bytes(json_bytes(part))
    write_rows(folder / "rows.jsonl", rows)


def test_five_seeds_of_four_datasets_with_settings_by_dataset(tmp_path: Path) -> None:
    cells = list(selection.cells_of(*prepare(NAME, output=tmp_path)).values())
    assert len(cells) == 4 * 2 * 5
    planned = {cell.keys[0]: cell for cell in cells if cell.keys[1] == PLANNER}
    given = catalogue.experiment(NAME).scales["small"].settings["updates"][planning.PLANNER]
    for name, cell in planned.items():
        assert cell.arguments[cell.arguments.index("--steps") + 1] == str(given[name])
        assert ("--training.early-share" in cell.arguments) == (name == "halfcheetah/medium-expert")


def test_a_difference_has_an_interval_over_the_seeds_of_both() -> None:
    rows = [row(CLONING, [100.0, 110.0, 90.0]), row(PLANNER, [150.0, 160.0, 140.0])]
    cloning, planner = planning.with_differences(rows)
    assert cloning["difference"] is None and planning.signed(cloning) == ""
    assert planner["difference"] == pytest.approx(50.0)
    low, high = planner["difference_interval"]
    assert 30.0 <= low < 50.0 < high <= 70.0
    (alone,) = planning.with_differences([row(PLANNER, [150.0])])
    assert alone["difference"] is None
    _, single = planning.with_differences([row(CLONING, [100.0]), row(PLANNER, [150.0])])
    assert planning.signed(single) == "+50 (n=1)"


@pytest.mark.parametrize(
    ("mean", "difference", "held"),
    [(100.0, 1.0, True), (99.0, 50.0, False), (120.0, 0.0, False)],
)
def test_the_claim_asks_for_the_datas_mean_and_more_than_cloning(
    mean: float, difference: float, held: bool
) -> None:
    found = row(PLANNER, [mean], difference=difference, difference_interval=None)
    ((words, holds),) = planning.checks_of([row(CLONING, [1.0], difference=None), found])
    assert holds is held
    assert words.startswith(f"hopper/medium: {mean:,.0f}, the data 100, ")


def test_a_part_says_so_and_the_whole_has_table_and_picture(tmp_path: Path) -> None:
    asked = {"scale": "debug", "seeds": 2, "output": tmp_path}
    cells = list(selection.cells_of(*prepare(NAME, **asked)).values())
    reproduce(NAME, **asked, only=())
    keep(tmp_path, cells[:1], [80.0])
    results, _ = reproduce(NAME, **asked, only=())
    assert results["verdict"] == "A part of the trainings: 1 of 4."
    keep(tmp_path, cells, [80.0, 120.0, 90.0, 140.0])
    results, _ = reproduce(NAME, **asked, only=())
    assert results["verdict"].startswith("hopper/medium: 130, the data 100, +45 [")
    assert [each["mean"] for each in results["rows"]] == [85.0, 130.0]
    assert results["tables"][0]["lines"][1][4] == "120 / 140"
    assert (tmp_path / "picture.png").stat().st_size > 0
