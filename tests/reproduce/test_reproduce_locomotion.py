"""The table of methods and datasets: its trainings by name, its parts, its files, the user's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trajlm.cli.main import main
from trajlm.core.errors import DataError, UsageError
from trajlm.evaluation.scores import interquartile_mean
from trajlm.reproduce import catalogue, locomotion_sizes, published_scores, selection, taking_part
from trajlm.reproduce.context import Context
from trajlm.reproduce.experiments import locomotion_table
from trajlm.reproduce.reproduce import prepare, reproduce
from trajlm.reproduce.results_page import filled
from trajlm.reproduce.score_matrix import aggregates, score_table, told
from trajlm.reproduce.table_files import latex, markdown
from trajlm.runs.cells import Cell, write_rows

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "locomotion-table"
PAIR = ("behavior_cloning/small", "decision_transformer/locomotion")


def asked(folder: Path, **more: Any) -> dict[str, Any]:
    return {"scale": "debug", "seeds": 2, "algorithms": PAIR, "output": folder, **more}


def planned(folder: Path, **more: Any) -> dict[str, Cell]:
    return selection.cells_of(*prepare(NAME, **asked(folder, **more)))


def keep(folder: Path, cells: Sequence[Cell]) -> None:
    """Rows of finished trainings, the first one's score 0, the next one's 10, and a point more a seed."""
    rows = []
    for place, cell in enumerate(cells):
        score = 10.0 * place + int(cell.keys[-1])
        protocol = {"updates": 4, "episodes": 1, "training_seed": int(cell.keys[-1])}
        row = {"target_return": None, "return_mean": 30.0, "dataset_score": score}
        rows.append(
            {
                "keys": list(cell.keys),
                "command": cell.command,
                "updates_per_s": 2.0,
                "protocol": protocol,
                "rows": [{**row, "d4rl_score": score}],
                "timing": {"total_seconds": 1.0, "steps": 500},
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "rows.jsonl", rows)


def score_row(dataset: str, recipe: str, seeds: Sequence[float], **more: Any) -> dict[str, Any]:
    known = {"dataset": dataset, "recipe": recipe, "seeds": list(seeds), "asked": 2}
    known |= {"mean": float(np.mean(seeds)), "interval": None, "measure": "dataset_score"}
    return {**known, **more}


# ---- sizes --------------------------------------------------------------------------------------


def test_small_is_five_hours_on_two_cores_in_trainings_of_a_quarter() -> None:
    settings = locomotion_sizes.SMALL
    longest = max(
        locomotion_sizes.cell_seconds(settings, recipe, body)
        for recipe in locomotion_sizes.ALGORITHMS
        for body in locomotion_sizes.BODIES
    )
    assert 600 < longest <= 15 * 60
    assert 300 < locomotion_sizes.cpu_minutes(settings, 3) <= 600
    small = catalogue.experiment(NAME).scales["small"]
    assert small.minutes <= 300
    assert small.seeds == 3


def test_a_planner_has_fewer_seeds_and_all_first_seeds_come_first(tmp_path: Path) -> None:
    experiment, context = prepare(NAME, output=tmp_path)
    cells = list(selection.cells_of(experiment, context).values())
    seeds = {
        recipe: sorted({cell.keys[2] for cell in cells if cell.keys[1] == recipe})
        for recipe in context.algorithms
    }
    assert seeds.pop("trajectory_transformer/locomotion") == ["0"]
    assert all(each == ["0", "1", "2"] for each in seeds.values())
    assert len(cells) == 9 * (4 * 3 + 1)
    order = [cell.keys[-1] for cell in cells]
    assert order == sorted(order)


# ---- trainings by name --------------------------------------------------------------------------


def test_the_trainings_are_listed_with_their_commands_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", NAME, "--scale", "debug", "--cells"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 5
    assert {line[1] for line in lines} == {"missing"}
    assert lines[0][0] == "hopper-medium-behavior_cloning-small-0"
    assert lines[0][2].startswith("trajlm train behavior_cloning/small --data ")
    assert not list(tmp_path.iterdir())


def test_shell_patterns_choose(tmp_path: Path) -> None:
    prepared = prepare(NAME, **asked(tmp_path, scale="small"))
    found = selection.chosen(*prepared, ["hopper-replay-*", "*medium-behavior*-1"])
    assert len(found) == 4 + 3
    assert "walker2d-medium-behavior_cloning-small-1" in found


# ---- parts --------------------------------------------------------------------------------------


def test_a_part_says_so_and_the_whole_is_made_of_the_same_rows(tmp_path: Path) -> None:
    more = asked(tmp_path, scale="small")
    cells = list(planned(tmp_path, scale="small").values())
    assert len(cells) == 36
    results, _ = reproduce(NAME, **more, only=())
    assert results["rows"] == []
    assert results["verdict"].startswith("A part of the table: 0 of 36 trainings")

    keep(tmp_path, cells[:3])
    listed = selection.listed(*prepare(NAME, **more))
    assert [each["there"] for each in listed] == [True] * 3 + [False] * 33
    results, _ = reproduce(NAME, **more, only=())
    assert results["held"] == "untested"
    assert results["verdict"] == "A part of the table: 3 of 36 trainings."
    assert "3 of 36 trainings" in (tmp_path / "table.md").read_text()
    assert results["tables"][0]["lines"] == [
        ["hopper/medium", "0.0 (n=1)", "10.0 (n=1)"],
        ["hopper/replay", "20.0 (n=1)", ""],
    ]

    keep(tmp_path, cells)
    results, _ = reproduce(NAME, **more)
    assert "A part" not in results["verdict"]
    assert results["held"] == "yes"
    assert results["verdict"].startswith("IQM over 9 datasets: BC ")
    first = results["rows"][0]
    assert first["commands"] == {"0": cells[0].command, "1": cells[18].command}
    assert first["seeds"] == [0.0, 181.0]
    assert first["minutes"] == pytest.approx(4 / 2 / 60)
    assert first["milliseconds"] == pytest.approx(2.0)
    assert first["protocol"] == {"updates": 4, "episodes": 1}
    assert results["command"].endswith(f"--seeds 2 --algorithms {' '.join(PAIR)}")
    assert set(results["commands"]) >= {cell.name for cell in cells}
    for name in ("picture.png", "table.md", "table.tex"):
        assert (tmp_path / name).stat().st_size > 0


def test_one_dataset_has_scores_and_no_statistic(tmp_path: Path) -> None:
    more = asked(tmp_path, seeds=1)
    context = prepare(NAME, **more)[1]
    keep(tmp_path, locomotion_table.cells(context))
    found = locomotion_table.run(context)
    assert found.verdict == (
        "No statistic over datasets: hopper/medium, BC 0.0; hopper/medium, Decision Transformer 10.0."
    )
    assert found.picture["aggregates"] == []


def test_a_recipe_that_joins_adds_a_column(tmp_path: Path) -> None:
    reproduce(NAME, **asked(tmp_path), only=())
    more = asked(tmp_path, algorithms=("implicit_q_learning",))
    _, context = prepare(NAME, **more)
    assert context.algorithms == (*PAIR, "implicit_q_learning/locomotion")
    assert len(planned(tmp_path, algorithms=("implicit_q_learning",))) == 6


def test_scores_of_other_commands_are_not_taken(tmp_path: Path) -> None:
    cell = next(iter(planned(tmp_path).values()))
    keep(tmp_path, [Cell(keys=cell.keys, arguments=("another",))])
    context = prepare(NAME, **asked(tmp_path / "new"))[1]
    context.folder, context.only = tmp_path, frozenset()
    with pytest.raises(OSError, match="was made by 'trajlm train another'"):
        context.train([cell])


# ---- statistics and tables ----------------------------------------------------------------------


def test_statistics_are_over_the_datasets_that_every_method_has() -> None:
    rows = [
        score_row("one", "a/b", [10.0, 20.0]),
        score_row("one", "c/d", [50.0, 60.0]),
        score_row("two", "a/b", [30.0, 90.0]),
        score_row("two", "c/d", [70.0, 80.0]),
        score_row("three", "a/b", [1000.0, 1000.0]),
        score_row("three", "c/d", [0.0]),
    ]
    found = {(each["recipe"], each["statistic"]): each for each in aggregates(rows)}
    assert found["a/b", "IQM"]["value"] == interquartile_mean([10, 20, 30, 90]) == 25.0
    assert found["a/b", "mean"]["value"] == 37.5
    assert found["a/b", "IQM"]["datasets"] == ["one", "two"]
    low, high = found["a/b", "IQM"]["interval"]
    assert 10.0 <= low < 25.0 < high <= 90.0
    table = score_table(rows, aggregates(rows), title="", note="")
    assert [line[0] for line in table.lines] == ["one", "two", "three", "IQM of 2", "mean of 2"]
    assert table.lines[3][1] == f"25.0 [{low:.0f}, {high:.0f}] (n=2)"
    assert aggregates(rows[-2:]) == []
    assert len(aggregates([rows[0], rows[2]])) == 2
    assert aggregates([rows[0], {**rows[2], "measure": "d4rl_score"}]) == []


def test_every_number_says_how_many_seeds_it_has() -> None:
    assert told(score_row("one", "a/b", [5.0])) == "5.0 (n=1)"
    assert told(score_row("one", "a/b", [5.0, 7.0], interval=(5.0, 7.0))) == "6.0 [5, 7] (n=2)"


def test_the_claim_is_checked_for_what_takes_part() -> None:
    over = [
        {"recipe": recipe, "statistic": "IQM", "value": value}
        for recipe, value in (
            ("behavior_cloning/small", 50.0),
            ("decision_transformer/locomotion", 80.0),
            ("implicit_q_learning/small", 90.0),
        )
    ]
    checks = list(locomotion_table.checks_of(over))
    assert [held for _, held in checks] == [True, False]
    assert "80.0 against 90.0 of IQL" in checks[1][0]
    assert not list(locomotion_table.checks_of(over[:1]))


def test_published_columns_stand_beside_d4rl_data_alone() -> None:
    recipes = ("behavior_cloning/small", "decision_transformer/locomotion")
    rows = [score_row("hopper_medium-v2", recipe, [40.0, 60.0]) for recipe in recipes]
    rows += [score_row("mine", recipe, [40.0, 60.0]) for recipe in recipes]
    table = score_table(rows, aggregates(rows), title="", note="")
    assert table.columns[3:] == ("BC, CORL", "DT, CORL", "DT, Chen et al.")
    assert table.lines[0][3:] == ("53.5", "65.1", "67.6")
    assert table.lines[1][3:] == table.lines[3][3:] == ("", "", "")
    assert "Tarasov et al. 2022" in table.note
    pair = [*rows[:2], *(score_row("walker2d-medium-v2", recipe, [0.0, 2.0]) for recipe in recipes)]
    own = score_table(pair, aggregates(pair), title="", note="")
    assert own.lines[-1][0] == "mean of 2"
    assert own.lines[-1][3:] == ("58.4", "66.4", "70.8")
    assert own.lines[-2][3:] == ("", "", "")
    assert score_table(rows[2:], [], title="", note="").columns == table.columns[:3]


def test_published_means_are_those_that_their_sources_print() -> None:
    means = {
        column: round(float(np.mean([published_scores.score(*column, d) for d in published_scores.DATASETS])), 2)
        for column in published_scores.COLUMNS
    }  # fmt: skip
    assert sorted(means.values()) == [50.4, 69.29, 73.84, 74.73, 78.88, 81.63]
    assert (
        published_scores.dataset_of("D4RL/walker2d_medium_replay-v2") == "walker2d-medium-replay-v2"
    )
    assert published_scores.dataset_of("hopper_medium-v1") is None


def test_a_table_is_markdown_and_latex() -> None:
    table = {
        "title": "100% of_it.",
        "columns": ["data", "10%BC"],
        "lines": [["a|b & c", "[1, 2] (n=3)"]],
        "note": "A note",
    }
    assert markdown(table).splitlines()[-1] == "| a\\|b & c | [1, 2] (n=3) |"
    found = latex(table)
    assert r"{a|b \& c} & {[1, 2] (n=3)} \\" in found
    assert r"\caption{100\% of\_it. A note.}" in found
    assert r"{data} & {10\%BC} \\" in found
    assert found.count(r"\begin{") == found.count(r"\end{") == 2


def test_the_committed_page_holds_the_committed_table() -> None:
    from trajlm.reproduce.gallery import read_results

    page = (REPOSITORY / "docs" / "results.md").read_text()
    assert filled(page, read_results(REPOSITORY / "results" / NAME)) == page
    with pytest.raises(DataError, match="each there once"):
        filled("no marks", None)


# ---- the user's own data ------------------------------------------------------------------------


def write_d4rl(path: Path, *, size: int = 11, actions: int = 3, **attributes: str) -> Path:
    """A file in D4RL's form: four episodes of 30 steps of noise, in Hopper's dimensions."""
    h5py = pytest.importorskip("h5py")
    generator = np.random.default_rng(0)
    ends = np.zeros(120, bool)
    ends[29::30] = True
    with h5py.File(path, "w") as file:
        file["observations"] = generator.normal(size=(120, size)).astype(np.float32)
        file["actions"] = generator.uniform(-1, 1, (120, actions)).astype(np.float32)
        file["rewards"] = generator.uniform(0, 1, 120).astype(np.float32)
        file["terminals"] = np.zeros(120, bool)
        file["timeouts"] = ends
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


def test_one_training_on_a_d4rl_file_has_d4rls_score_and_the_published_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAJLM_CACHE", str(tmp_path / "cache"))
    file = write_d4rl(tmp_path / "hopper_medium-v2.hdf5", env_id="Hopper-v5")
    more = asked(tmp_path / "run", data=(str(file),))
    results, folder = reproduce(NAME, **more, only=["hopper_medium-v2-behavior*-0"], workers=1)
    (row,) = results["rows"]
    assert row["dataset"] == "hopper_medium-v2"
    assert row["measure"] == "d4rl_score"
    (returned,) = row["returns"]
    assert row["mean"] == pytest.approx(100 * (returned + 20.272305) / (3234.3 + 20.272305))
    assert row["protocol"]["env_id"] == "Hopper-v5"
    assert row["protocol"]["data_hash"] == results["data"]["hopper_medium-v2"]
    assert results["tables"][0]["columns"][-1] == "BC, CORL"
    assert results["protocol"]["data"] == [str(file)]
    assert f"--data {file}" in results["command"]
    assert "BC, CORL" in (folder / "table.tex").read_text()
    assert results["verdict"] == "A part of the table: 1 of 4 trainings."
    with pytest.raises(OSError, match="another protocol: data"):
        prepare(NAME, **asked(tmp_path / "run"))


@pytest.mark.parametrize(
    ("names", "attributes", "error", "words"),
    [
        (["mine.hdf5"], {}, DataError, "names no environment"),
        (["mine.hdf5"], {"env_id": "Pendulum-v1"}, DataError, "no reference returns"),
        (["a/mine.hdf5", "b/mine.hdf5"], {"env_id": "Hopper-v5"}, UsageError, "are called mine"),
    ],
)
def test_data_that_nothing_can_be_scored_on_are_refused(
    names: list[str],
    attributes: dict[str, str],
    error: type[Exception],
    words: str,
    tmp_path: Path,
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_d4rl(tmp_path / name, **attributes)
    data = tuple(str(tmp_path / name) for name in names)
    with pytest.raises(error, match=words):
        planned(tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_the_scale_of_scores_is_that_of_the_data(tmp_path: Path) -> None:
    def measured(name: str, env_id: str) -> str:
        context = Context(
            scale_name="debug",
            scale=catalogue.experiment(NAME).scales["debug"],
            seeds=(0,),
            algorithms=taking_part.recipes(catalogue.experiment(NAME), ()),
            folder=tmp_path / "run",
            data=(str(write_d4rl(tmp_path / name, env_id=env_id)),),
        )
        (task,) = locomotion_table.tasks(context)
        return task.measure

    assert measured("mine.hdf5", "Walker2d-v5") == "d4rl_score"
    assert measured("hopper_medium-v2.hdf5", "Hopper-v4") == "d4rl_score"
