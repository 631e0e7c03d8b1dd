"""The frame of experiments: what is found, what is refused and why, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trajlm.cli.main import main
from trajlm.core.errors import DataError, StorageError, TrajlmError, UsageError
from trajlm.reproduce import catalogue, taking_part
from trajlm.reproduce.base import SCALES, Experiment
from trajlm.reproduce.context import Context
from trajlm.reproduce.gallery import gallery, read_results
from trajlm.reproduce.reproduce import refuse_other_protocol, reproduce
from trajlm.runs.cells import Cell
from trajlm.runs.config import resolve

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = "locomotion-table"
PROTOCOL = {
    "experiment": "return-conditioning",
    "version": 1,
    "scale": "small",
    "seeds": [0, 1, 2],
    "algorithms": ["decision_transformer/locomotion"],
    "settings": {"updates": 5},
}


def context(folder: Path, *, scale: str = "debug") -> Context:
    found = catalogue.experiment("return-conditioning")
    return Context(
        scale_name=scale,
        scale=found.scales[scale],
        seeds=(0,),
        algorithms=found.algorithms,
        folder=folder,
    )


@pytest.fixture(params=catalogue.names())
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return catalogue.experiment(request.param)


# ---- what there is ------------------------------------------------------------------------------


def test_every_file_is_an_experiment() -> None:
    folder = REPOSITORY / "src" / "trajlm" / "reproduce" / "experiments"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in catalogue.experiments()} == files
    assert {"return-conditioning", "credit-and-data"} <= set(catalogue.names())


def test_an_experiment_says_all_that_the_list_and_the_gallery_show(experiment: Experiment) -> None:
    assert set(experiment.scales) == set(SCALES)
    assert experiment.published
    assert experiment.question.endswith("?")
    assert experiment.alt
    assert experiment.scales["debug"].minutes <= 2
    for scale in experiment.scales.values():
        assert scale.size
        assert json.loads(json.dumps(dict(scale.settings))) == dict(scale.settings)


def test_the_own_recipes_of_an_experiment_take_part(experiment: Experiment) -> None:
    assert taking_part.recipes(experiment, ()) == experiment.algorithms
    assert all(resolve(recipe).recipe == recipe for recipe in experiment.algorithms)


def test_the_list_shows_every_experiment_with_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert list(listed) == catalogue.names()
    assert all(set(each["scales"]) == {"small", "paper"} for each in listed.values())
    assert main(["reproduce"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in listed)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["return-conditionning"], 2, "did you mean 'return-conditioning'"),
        (["four-score-and-seven"], 2, "unknown experiment"),
        (["credit-and-data", "--scale", "smal"], 2, "did you mean 'small'"),
        (["credit-and-data", "--seeds", "0"], 2, "below 1"),
        (["credit-and-data", "--workers", "0"], 2, "below 1"),
        (["credit-and-data", "--algorithms", "decision_transfomer/small"], 2, "did you mean"),
        (["credit-and-data", "--algorithms", "decision_transformer/smal"], 2, "'small'"),
        (["return-conditioning", "--algorithms", "behavior_cloning/small"], 2, "no target return"),
        (["long-horizon", "--algorithms", "behavior_cloning/small"], 2, "predicts no states"),
        (["credit-and-data", "--algoritms", "x"], 2, "--algorithms"),
        (["credit-and-data", "--only", "x"], 2, "run as a whole"),
        (["credit-and-data", "--cells"], 2, "run as a whole"),
        (["credit-and-data", "--data", "x.hdf5"], 2, "makes its own data"),
        ([TABLE, "--only", "hopper-medium-behaviour_cloning-small-0"], 2, "did you mean 'hopper-"),
        ([TABLE, "--only", "zzz"], 2, "--cells"),
        ([TABLE, "--kept", "--only", "x"], 2, "one of them"),
        ([TABLE, "--data", "none.hdf5", "--cells"], 3, "no such file"),
    ],
)
def test_bad_input_is_one_line_that_says_why(
    arguments: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == status
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert words in told[0]
    assert not list(tmp_path.iterdir())


def test_an_algorithm_without_a_recipe_is_the_experiments_own_or_small() -> None:
    found = catalogue.experiment("credit-and-data")
    assert taking_part.recipes(found, ["behavior_cloning"]) == ("behavior_cloning/small",)
    assert len(taking_part.recipes(found, ["percent_behavior_cloning"])) == 4
    assert taking_part.recipes(found, ["trajectory_transformer"]) == (
        "trajectory_transformer/small",
    )


def test_an_algorithm_that_does_not_fit_its_data_is_refused_before_training() -> None:
    cell = Cell(
        keys=("one",),
        arguments=("trajectory_transformer/debug", "--data", "synthetic:image"),
    )
    with pytest.raises(
        UsageError, match=r"trajectory_transformer/debug cannot take part.*3072 entries"
    ):
        taking_part.refuse_misfits([cell])


def test_a_model_that_does_not_act_is_trained_but_not_scored() -> None:
    arguments = ("dynamics_ensemble/debug", "--data", "synthetic:box")
    with pytest.raises(UsageError, match="no policy to score"):
        taking_part.refuse_misfits([Cell(keys=("one",), arguments=arguments)])
    taking_part.refuse_misfits([Cell(keys=("one",), arguments=(*arguments, "--episodes", "0"))])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seeds", [0], r"seeds \[0, 1, 2\], not \[0\]"),
        ("scale", "paper", "scale small, not paper"),
        ("version", 2, "version 1, not 2"),
        ("experiment", "credit-and-data", "experiment return-conditioning"),
        ("algorithms", ["behavior_cloning/small"], "algorithms"),
        ("settings", {"updates": 6}, "settings"),
    ],
)
def test_a_folder_of_another_protocol_is_refused(
    key: str, value: Any, words: str, tmp_path: Path
) -> None:
    (tmp_path / "protocol.json").write_text(json.dumps(PROTOCOL))
    refuse_other_protocol(tmp_path, PROTOCOL)
    with pytest.raises(StorageError, match=f"{words}.*choose another --output"):
        refuse_other_protocol(tmp_path, {**PROTOCOL, key: value})


def test_further_seeds_are_taken_where_trainings_have_rows_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "protocol.json").write_text(json.dumps(PROTOCOL))
    refuse_other_protocol(tmp_path, {**PROTOCOL, "seeds": [0, 1, 2, 3]}, further_seeds=True)
    for fewer_or_other in ([0, 1], [0, 1, 3, 4]):
        with pytest.raises(StorageError, match="seeds"):
            refuse_other_protocol(
                tmp_path, {**PROTOCOL, "seeds": fewer_or_other}, further_seeds=True
            )


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match="holds no experiment"):
        reproduce("credit-and-data", scale="debug", output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


# ---- what is kept -------------------------------------------------------------------------------


def test_a_part_is_computed_once_and_reads_as_it_was_kept(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"pair": (1, 2), "nothing": float("nan")}

    first = context(tmp_path).part("one", compute)
    assert first == {"pair": [1, 2], "nothing": None}
    assert context(tmp_path).part("one", compute) == first
    assert calls == [1]
    with pytest.raises(ValueError, match=r"part '\.\./two'"):
        context(tmp_path).part("../two", compute)


def test_a_part_that_fails_is_not_kept(tmp_path: Path) -> None:
    def fail() -> None:
        raise TrajlmError("out of luck")

    with pytest.raises(TrajlmError, match="luck"):
        context(tmp_path).part("one", fail)
    assert context(tmp_path).part("one", lambda: 3) == 3


def test_a_dataset_is_made_once_and_refused_when_it_has_changed(tmp_path: Path) -> None:
    made = context(tmp_path).shipped("hopper", "medium", steps=40)
    before = context(tmp_path).datasets
    assert context(tmp_path).shipped("hopper", "medium", steps=40) == made
    assert context(tmp_path).datasets == before
    less = context(tmp_path).shipped("hopper", "medium", steps=20, part="half")
    assert less != made
    assert len(set(context(tmp_path).datasets.values())) == 1, "an episode is never cut"
    (tmp_path / "datasets.json").write_text(json.dumps(dict.fromkeys(before, "0" * 64)))
    with pytest.raises(DataError, match="no longer the data"):
        context(tmp_path).shipped("hopper", "medium", steps=40)


def test_time_adds_up_over_calls(tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_text('{"seconds": 100.0}')
    assert context(tmp_path).seconds >= 100.0


def test_what_held_is_counted(tmp_path: Path) -> None:
    real = context(tmp_path, scale="small")
    assert [real.held(n, of=2) for n in (2, 1, 0)] == ["yes", "partly", "no"]
    assert real.held(0, of=0) == "untested"
    assert context(tmp_path).held(2, of=2) == "untested"


# ---- the gallery --------------------------------------------------------------------------------


def test_the_committed_gallery_is_what_the_results_say() -> None:
    assert (REPOSITORY / "docs" / "gallery.md").read_text() == gallery(REPOSITORY / "results")


def test_committed_results_are_those_of_the_experiment_as_it_is(experiment: Experiment) -> None:
    folder = REPOSITORY / "results" / experiment.name
    found = read_results(folder)
    if found is None:
        assert f"reproduce {experiment.name} --scale small" in gallery(REPOSITORY / "results")
        return
    assert found["protocol"]["version"] == experiment.version
    assert found["protocol"]["settings"] == experiment.scales[found["protocol"]["scale"]].settings
    assert found["claim"] == experiment.claim
    for kind in ("png", "svg"):
        assert (folder / f"picture.{kind}").stat().st_size > 0
    assert (folder / "picture.png").stat().st_size < 500_000
    for name in experiment.further:
        largest = 3_000_000 if name.endswith(".gif") else 500_000
        assert (folder / name).stat().st_size < largest


def test_a_gallery_of_other_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        gallery(tmp_path / "results")
    (tmp_path / "credit-and-data").mkdir()
    (tmp_path / "credit-and-data" / "results.json").write_text('{"format": "another"}')
    with pytest.raises(DataError, match="another"):
        gallery(tmp_path)


def test_an_experiment_needs_every_scale() -> None:
    found = catalogue.experiment("credit-and-data")
    with pytest.raises(UsageError, match="scales"):
        replace(found, scales={"small": found.scales["small"]})
