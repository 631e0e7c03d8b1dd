"""Scores by condition as text: order, intervals, gaps."""

from __future__ import annotations

from typing import Any

import pytest

from trajlm.evaluation.scores import rank_correlation
from trajlm.reproduce.experiments import credit_and_data, return_conditioning
from trajlm.reproduce.score_tables import ordered, score_tables


def row(table: str, condition: str, recipe: str, mean: float, **more: Any) -> dict[str, Any]:
    known = {"dataset": "hopper, replay", "seeds": [mean], "interval": None}
    return {**known, "table": table, "condition": condition, "recipe": recipe, "mean": mean, **more}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["20", "1", "5"], ["1", "5", "20"]),
        (["1/10", "1/2", "all"], ["all", "1/2", "1/10"]),
        (["delayed", "dense"], ["dense", "delayed"]),
    ],
)
def test_conditions_stand_in_their_order(found: list[str], expected: list[str]) -> None:
    assert ordered(found) == expected


def test_a_table_has_a_line_an_algorithm_and_a_gap_where_nothing_was_measured() -> None:
    rows = [
        row("data", "1/2", "a/b", 50.0),
        row("data", "all", "a/b", 80.0, interval=(70.4, 90.2), seeds=[70.4, 90.2]),
        row("data", "all", "c/d", 10.0),
    ]
    (table,) = score_tables(rows, titles={"context": "Context", "data": "Data"}, note="")
    assert table.title == "hopper, replay. Data"
    assert table.columns == ("algorithm", "all", "1/2")
    assert table.lines == (
        ("a/b", "80.0 [70, 90]", "50.0 (n=1)"),
        ("c/d", "10.0 (n=1)", ""),
    )


def test_the_claim_is_checked_for_what_is_asked_for_a_return() -> None:
    recipe = "decision_transformer/locomotion"
    rows = [
        row("imitation", "as it is", recipe, 90.0),
        row("imitation", "as it is", "behavior_cloning/small", 60.0),
        row("reward", "delayed", recipe, 80.0),
        row("reward", "delayed", "behavior_cloning/small", 1.0),
        row("context", "1", recipe, 85.0),
        row("context", "20", recipe, 95.0),
    ]
    checks = list(credit_and_data.checks_of(rows))
    assert [held for _, held in checks] == [True, False, True]
    assert "80.0" in checks[1][0] and "with delayed reward against 90.0" in checks[1][0]


def test_the_unchanged_training_stands_in_every_table_that_changes_it() -> None:
    recipe = "decision_transformer/locomotion"
    rows = [
        row("imitation", "as it is", recipe, 90.0),
        row("imitation", "as it is", "behavior_cloning/small", 60.0),
        *(row("context", "1", recipe, 1.0), row("data", "1/2", "behavior_cloning/small", 2.0)),
    ]
    found = {(r["table"], r["condition"], r["recipe"]) for r in credit_and_data.unchanged(rows)}
    assert found == {("context", "5", recipe), ("data", "all", "behavior_cloning/small")}


def test_targets_reach_out_of_the_data() -> None:
    found = return_conditioning.targets(100.0, 1100.0)
    assert len(found) == 12
    assert found[0] == 0.0
    assert found[-1] == 1350.0
    assert found == sorted(found)


def test_rank_correlation_with_ties_and_without_anything_to_say() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 2, 3]) == pytest.approx(0.9486833)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) == 0.0
    assert rank_correlation([1], [5]) == 0.0
