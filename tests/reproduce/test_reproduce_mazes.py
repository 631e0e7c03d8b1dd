"""The mazes from walks to picture, at debug size: who takes part, who guides whom, what is counted."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from trajlm.data.load import load_dataset
from trajlm.envs.make import make_environment
from trajlm.envs.maze_map import MAZES
from trajlm.reproduce import maze_ways as ways
from trajlm.reproduce.context import Context
from trajlm.reproduce.experiments import mazes
from trajlm.reproduce.maze_findings import lacking
from trajlm.reproduce.reproduce import reproduce
from trajlm.training.precision import choose_precision

PLANNER, CRITIC = "trajectory_transformer/maze", "implicit_q_learning/maze"
UMAZE = "pointmaze-umaze"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mazes") / "run"
    goals = "trajectory_transformer/maze-goals"
    return reproduce("mazes", scale="debug", algorithms=[CRITIC, PLANNER, goals], output=folder)


def test_each_method_and_the_guided_search_has_a_row(found):
    results, folder = found
    assert results["held"] == "untested"
    assert [(row["recipe"], row["guide"]) for row in results["rows"]] == [
        (ways.DATA, None),
        (CRITIC, None),
        (PLANNER, None),
        ("trajectory_transformer/maze-goals", None),
        (PLANNER, CRITIC),
        (ways.TRUE_MAZE, CRITIC),
    ]
    assert "with plans of 2" in results["verdict"]
    assert "UMaze" in results["verdict"] and "search alone" in results["verdict"]
    assert [len(line) for line in results["tables"][0]["lines"]] == [2] * 6
    for name in ("picture.png", "picture.svg"):
        assert 10_000 < (folder / name).stat().st_size < 500_000


def test_the_guided_search_is_an_evaluation_of_the_same_run(found):
    results, folder = found
    name = f"{PLANNER}-{UMAZE}-0-guided-{CRITIC}".replace("/", "-")
    assert results["commands"][name] == (
        "trajlm evaluate runs/trajectory_transformer-maze-pointmaze-umaze-0 --guide "
        "runs/implicit_q_learning-maze-pointmaze-umaze-0 --episodes 2 --threads 1 "
        "--evaluation.no-video"
    )
    protocol = json.loads((folder / "runs" / name / "results.json").read_text())["protocol"]
    assert protocol["guide"] == CRITIC and protocol["episodes"] == 2


def test_rows_tell_in_what_arithmetic_their_models_were_trained(found):
    rows = [json.loads(line) for line in (found[1] / "rows.jsonl").read_text().splitlines()]
    told = [row.get("training_precision") for row in rows]
    auto = choose_precision("auto").name
    # Critics are always trained in float32; the last is an evaluation alone.
    assert told == ["float32", auto, auto, None]


def test_the_datas_own_success_is_counted(found):
    results, folder = found
    store = load_dataset(str(folder / "data" / f"trajlm/{UMAZE}/waypoints-v0"))
    assert results["rows"][0]["success"] == pytest.approx(store.terminated.mean())
    assert results["picture"][UMAZE]["steps"] == store.num_steps


def test_the_ways_drawn_begin_far_from_their_goals(found):
    drawn = found[0]["picture"][UMAZE]
    environment = make_environment(MAZES[UMAZE])
    for way, seed in zip(drawn["ways"], ways.far_apart(UMAZE, 2), strict=True):
        observation, _ = environment.reset(seed=seed)
        assert way["path"][0] == pytest.approx(observation["achieved_goal"], abs=0.01)
        assert way["goal"] == pytest.approx(observation["desired_goal"], abs=0.01)
        assert len(way["path"]) == 61 or way["reached"]
    assert drawn["walls"][2] == [1, 1, 1, 0, 1]


def test_the_claim_is_held_maze_by_maze(tmp_path):
    context = Context(
        scale_name="small",
        scale=mazes.EXPERIMENT.scales["small"],
        seeds=(0,),
        algorithms=(PLANNER, CRITIC),
        folder=tmp_path,
    )

    def rows(maze, search, critic, guided):
        made = [
            ways.row_of(maze, ways.DATA, [[0.0]]),
            ways.row_of(maze, PLANNER, [[1.0] * search + [0.0] * (10 - search)]),
            ways.row_of(maze, CRITIC, [[1.0] * critic + [0.0] * (10 - critic)]),
            ways.row_of(maze, PLANNER, [[1.0] * guided + [0.0] * (10 - guided)], guide=CRITIC),
        ]
        return [{**row, "name": mazes.name_of(row, context.algorithms)} for row in made]

    every = rows(UMAZE, 4, 6, 7) + rows("pointmaze-large", 4, 6, 6)  # a tie beats nothing
    drawn = {maze: {"steps": 10, "walker": "x"} for maze in (UMAZE, "pointmaze-large")}
    findings = mazes.findings(context, every, drawn, there=2, count=2)
    assert findings.held == "partly"
    assert "Large 60% (search alone 40%, critic's own policy 60%)" in findings.verdict
    assert findings.tables[0].lines[-1][0].endswith("guided by IQL")
    part = mazes.findings(context, every[:2], drawn, there=1, count=2)
    assert part.held == "untested"
    assert part.verdict.startswith("A part of the whole: 1 of 2 trainings and searches. ")


def test_the_mazes_are_made_in_parts(tmp_path):
    more = {"scale": "debug", "algorithms": [CRITIC, PLANNER], "output": tmp_path / "run"}

    def parts(only):
        results, _ = reproduce("mazes", **more, only=only)
        return results, [(row["recipe"], row["guide"]) for row in results["rows"]]

    results, made = parts(())
    assert made == [] and results["tables"] == []
    assert results["verdict"].startswith("A part of the whole: 0 of 3 trainings and searches")
    results, made = parts(["implicit*"])
    assert made == [(ways.DATA, None), (CRITIC, None), (ways.TRUE_MAZE, CRITIC)]
    assert results["picture"][UMAZE]["walker"] == "IQL"
    results, made = parts(["*transformer*-0"])  # its critic is there, so the search is guided too
    every = [(ways.DATA, None), (CRITIC, None), (PLANNER, None), (PLANNER, CRITIC)]
    assert made == [*every, (ways.TRUE_MAZE, CRITIC)]
    assert not results["verdict"].startswith("A part")
    assert "guided by IQL" in results["picture"][UMAZE]["walker"]
    assert parts(())[1] == made


def test_what_lacks_is_told_where_true_states_are_worth_more():
    def rows(policy, near, far):
        own = ways.row_of(UMAZE, CRITIC, [[1.0] * policy + [0.0] * (10 - policy)])
        true = [
            {**ways.row_of(UMAZE, ways.TRUE_MAZE, [[1.0] * n + [0.0] * (10 - n)], guide=CRITIC),
             "horizon": horizon}
            for horizon, n in ((1, near), (8, far))
        ]  # fmt: skip
        return [own, *true]

    assert "policy on UMaze (90%, plans of 8)" in lacking(rows(6, 5, 9))
    assert lacking(rows(6, 9, 6)) == ""
    assert lacking(rows(6, 5, 9)[:1]) == ""


def test_the_picture_is_drawn_of_the_results_alone(found):
    figure = Figure(figsize=(6, 6))
    mazes.draw(json.loads(json.dumps(found[0])), figure)
    (above, below) = figure.axes
    assert above.get_title() == "UMaze"
    assert [tick.get_text() for tick in below.get_yticklabels()] == [
        row["name"] for row in found[0]["rows"]
    ]
