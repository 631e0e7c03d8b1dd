"""Methods over tasks: what is one method, what is averaged, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trajlm.core.errors import DataError
from trajlm.report.comparison import compare
from trajlm.report.page import build_report
from trajlm.report.records import read_entries

HOPPER = {"env_id": "Hopper-v5", "data": "trajlm/hopper/replay-v0"}
Write = Callable[..., Path]


def test_algorithms_are_compared_over_the_datasets_they_share(write_seeds: Write) -> None:
    folders = [
        write_seeds(f"{algorithm}-{number}", algorithm=algorithm, skill=skill, **task)
        for algorithm, skill in (("decision_transformer", 1.0), ("behavior_cloning", 0.8))
        for number, task in enumerate(({}, HOPPER))
    ]
    found = compare(read_entries(folders))
    assert found is not None
    assert found.scale == "dataset_score"
    assert len(found.tasks) == 2
    first, second = found.methods
    assert (first.name, second.name) == ("Decision Transformer", "Behavior Cloning")
    assert first.scores.shape == (3, 2)
    results = json.loads(
        (folders[0] / "seed-1" / "eval" / "step-00005000" / "results.json").read_text()
    )
    asked = {row["target_return"]: row["dataset_score"] for row in results["rows"]}
    assert first.scores[1, 0] == asked[5500.0], "the highest target that the data contains"
    assert found.improvement(first, second).value == 1.0
    low, high = first.statistics["iqm"].interval or (0, 0)
    assert low <= first.statistics["iqm"].value <= high


def test_recipes_stand_for_methods_where_an_algorithm_has_several(write_seeds: Write) -> None:
    recipes = ("percent_behavior_cloning/ten", "percent_behavior_cloning/forty")
    folders = [
        write_seeds(str(n), algorithm="percent_behavior_cloning", recipe=recipe)
        for n, recipe in enumerate(recipes)
    ]
    found = compare(read_entries(folders))
    assert found is not None
    assert [method.name for method in found.methods] == list(recipes)


def test_one_method_or_single_runs_are_not_averaged(write_seeds: Write, write_run: Write) -> None:
    assert compare(read_entries([write_seeds()])) is None
    runs = [write_run(name, algorithm=name) for name in ("a", "b")]
    assert compare(read_entries(runs)) is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"precision": "bf16"}, "precision float32 and bf16"),
        ({"seeds": 2}, None),
        (HOPPER, "no dataset"),
    ],
)
def test_what_was_measured_differently_has_no_average(
    options: dict, reason: str | None, write_seeds: Write, tmp_path: Path
) -> None:
    folders = [write_seeds("a"), write_seeds("b", algorithm="behavior_cloning", **options)]
    page = build_report(folders, tmp_path / "page.html").read_text()
    if reason is None:
        assert "No average" not in page
        return
    with pytest.raises(DataError, match=reason):
        compare(read_entries(folders))
    assert "No average" in page


def test_runs_evaluated_otherwise_than_their_group_have_no_average(write_seeds: Write) -> None:
    folders = [write_seeds("a"), write_seeds("b", algorithm="behavior_cloning")]
    file = folders[0] / "seed-0" / "eval" / "step-00005000" / "results.json"
    results = json.loads(file.read_text())
    results["protocol"]["checkpoint"] = "best"
    file.write_text(json.dumps(results))
    with pytest.raises(DataError, match=r"a and a/seed-0 .* checkpoint last and best"):
        compare(read_entries(folders))


def test_the_held_out_loss_stands_in_every_report_by_return(examples: Callable) -> None:
    page = examples("single").read_text()
    assert "1,500 to 3,000 (1 episode)" in page
    assert "4,500 to 6,000 (3 episodes)" in page
    assert "no episode was held out" in examples("bare").read_text()


def test_a_page_shows_methods_intervals_and_that_seeds_are_few(examples: Callable) -> None:
    page = examples("methods").read_text()
    for text in ("IQM", "Optimality gap", "fewer than 5", "Share of training runs", "100%"):
        assert text in page
