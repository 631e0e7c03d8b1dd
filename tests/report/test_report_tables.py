"""Numbers and tables as text: what a reader sees in the terminal, the README and the page."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from trajlm.report.formatting import amount, interval, plain, plus_minus, score
from trajlm.report.readings import (
    best_return,
    headline_row,
    histogram,
    obedience,
    planned_updates,
    protocol_of,
    quantile_pairs,
    sentence,
    warnings,
)
from trajlm.report.records import Run
from trajlm.report.tables import score_cells

ROW = {
    "target_return": 5500.0,
    "episodes": 50,
    "failed": 0,
    "return_mean": 5209.6,
    "return_interval": [5120.0, 5300.4],
    "interval_kind": "95% bootstrap over episodes",
    "length_mean": 1000.0,
    "d4rl_score": 44.217,
    "d4rl_interval": [43.5, 44.9],
}
GROUP_ROW = {
    "target_return": 5500.0,
    "return_mean": 5000.0,
    "return_interval": [4800.0, 5200.0],
    "interval_kind": "95% bootstrap over training seeds",
    "seeds": 3,
    "episodes": 150,
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5209.6, "5,210"),
        (5500.0, "5,500"),
        (90.51, "90.5"),
        (-280.178, "-280"),
        (3.14159, "3.14"),
        (0.012345, "0.0123"),
        (0, "0"),
        (1e-7, "1.00e-07"),
        (1e30, "1.00e+30"),
        (99.97, "100"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (True, "–"),
        ("5", "–"),
        (10**400, "–"),
    ],
)
def test_amounts_keep_three_digits_and_separate_thousands(value: object, text: str) -> None:
    assert amount(value) == text


def test_a_mean_is_given_no_more_digits_than_its_interval_supports() -> None:
    assert plus_minus(5209.6, [5120.0, 5300.4]) == "5,210 ± 90"
    assert plus_minus(3.2, [3.1, 3.3]) == "3.2 ± 0.1"
    assert plus_minus(5209.6, None) == "5,210"
    assert plus_minus(None, [1, 2]) == "–"
    assert interval([5120, 5300.4]) == "5,120 to 5,300"
    assert interval([None, 3]) == "–"
    assert score(44.217) == "44.2"


def test_text_is_one_line_without_control_characters() -> None:
    assert plain("a\n\x1b[31mred\u202e") == "a  [31mred "
    assert plain("x" * 900, limit=10) == "x" * 9 + "…"
    assert plain([1, None, "b"]) == "1, –, b"


def test_the_sentence_says_what_was_asked_and_reached() -> None:
    assert sentence(ROW) == "asked for 5,500 it reached 5,210 ± 90 over 50 episodes"
    assert sentence(GROUP_ROW) == "asked for 5,500 it reached 5,000 ± 200 over 3 training seeds"
    free = {**ROW, "target_return": None}
    assert sentence(free).startswith("without being asked for a return it reached 5,210")


def test_the_cells_say_what_an_interval_is_over() -> None:
    assert "50 episodes" in score_cells(ROW)
    assert "44.2 (43.5 to 44.9)" in score_cells(ROW)
    assert "3 seeds" in score_cells(GROUP_ROW)


def test_few_seeds_and_single_seeds_are_pointed_out() -> None:
    assert any(text.startswith("One training seed") for text in warnings([ROW], {}))
    assert any(
        text.startswith("3 training seeds, fewer than 5") for text in warnings([GROUP_ROW], {})
    )
    assert not warnings([{**GROUP_ROW, "seeds": 5}], {})
    assert not warnings([], {"precision": "bf16"})


def test_what_makes_a_score_doubtful_is_said() -> None:
    protocol = {"precision": "bf16", "checkpoint": "best", "updates": 100}
    said = " ".join(warnings([{**ROW, "failed": 2}], protocol, best=5000.0, planned=200))
    for expected in (
        "Only 100 of 200 planned updates",
        "2 episodes failed",
        "One training seed",
        "best checkpoint",
        "bf16",
        "5,500; its best return is 5,000",
    ):
        assert expected in said


def test_the_headline_is_the_highest_target_that_the_data_holds() -> None:
    rows = [{**ROW, "target_return": target} for target in (1000.0, 5000.0, 9000.0)]
    assert headline_row(rows, best=5600.0) is rows[1]
    assert headline_row(rows, best=None) is rows[2]
    assert headline_row(rows, best=10.0) is rows[0]
    assert headline_row([{**ROW, "return_mean": None}], best=None) is None


def test_obedience_counts_the_falls() -> None:
    def rows(*means: float) -> list[dict[str, object]]:
        return [{"target_return": float(i), "return_mean": m} for i, m in enumerate(means)]

    assert obedience(rows(1, 2, 3)) == "What it reached rises with every target."
    assert obedience(rows(1, 3, 2)) == "Asking for more gave less in 1 of 2 steps between targets."
    assert obedience(rows(1, 2)) is None


def test_planned_updates_are_those_wanted_before_time_was_counted() -> None:
    config = {"training": {"steps": 700}}
    facts = {"name": "a", "folder": Path("a"), "config": config}
    assert planned_updates(Run(**facts)) == 700
    assert planned_updates(Run(**facts, meta={"demo": {"wanted": 900}})) == 900
    assert planned_updates(Run(name="a", folder=Path("a"), config={"training": "x"})) is None


def test_the_protocol_of_a_row_wins_over_that_of_its_file() -> None:
    pairs = dict(protocol_of({"env_id": "Hopper-v5"}, {"env_id": "Ant-v5", "mujoco": "3.3.7"}))
    assert pairs["env_id"] == "Hopper-v5"
    assert pairs["mujoco"] == "3.3.7"
    named = protocol_of({}, {"checkpoint": "5000"}, last_step=5000)
    assert named == protocol_of({}, {"checkpoint": "last"}, last_step=5000)
    assert named != protocol_of({}, {"checkpoint": "2500"}, last_step=5000)
    assert named != protocol_of({}, {"checkpoint": "best"}, last_step=5000)


def test_dataset_summaries_are_read_as_written_or_not_at_all() -> None:
    assert best_return({"return_max": 7.0}) == 7.0
    assert best_return({"return_quantiles": {"0": 1.0, "1": 9.0}}) == 9.0
    assert best_return({"return_histogram": {"edges": [0, 5], "counts": [3]}}) == 5.0
    assert best_return({}) is None
    assert histogram({"return_histogram": {"edges": [0, 1, 2], "counts": [3]}}) is None
    assert histogram({"return_histogram": {"edges": [], "counts": []}}) is None
    assert quantile_pairs({"return_quantiles": {"0.5": 3, "0.05": 1, "x": 2}}) == [
        (0.05, 1.0),
        (0.5, 3.0),
    ]
