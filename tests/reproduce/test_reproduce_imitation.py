"""Imitation: what its ways of acting are, and how they are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.core.protocols import Step
from trajlm.core.spec import Box, DataSpec
from trajlm.reproduce import imitation_ways as ways
from trajlm.reproduce.context import Context
from trajlm.reproduce.experiments import imitation
from trajlm.reproduce.imitation_ways import GREEDY, SAMPLING, SEARCH, WAYS
from trajlm.reproduce.taking_part import titles

SPEC = DataSpec(
    observation=Box(shape=(2,)), action=Box(shape=(1,), low=(-1.0,), high=(1.0,)), horizon=100
)


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights, far enough from even ones that the likeliest token is not always the first."""
    torch.manual_seed(0)
    model = Model.build(
        Config(transitions=6, num_bins=8, width=16, num_layers=2, num_heads=2), SPEC, {}
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        edges = torch.linspace(-1, 1, 9)
        model.discretizer.edges.copy_(edges)
        model.discretizer.values.copy_((edges[1:] + edges[:-1]) / 2)
    return model.eval()


def first_actions(model: Model, **policy: Any) -> np.ndarray:
    generator, count = np.random.default_rng(0), 64
    step = Step(
        observation=generator.uniform(-1, 1, (count, 2)).astype(np.float32),
        reward=np.zeros(count),
        terminated=np.zeros(count, bool),
        truncated=np.zeros(count, bool),
        is_first=np.ones(count, bool),
        seed=np.arange(count),
    )
    actor = model.policy(None, **policy)
    return actor.act(actor.initial(count), step)[1]


def test_of_one_beam_the_horizon_changes_no_action(model: Model) -> None:
    greedy = first_actions(model, **WAYS[GREEDY])
    assert len(np.unique(greedy)) > 1
    np.testing.assert_array_equal(greedy, first_actions(model, **{**WAYS[GREEDY], "horizon": 3}))
    wider = first_actions(model, search="likelihood", beam_width=16, horizon=3)
    assert (wider != greedy).any()


def test_sampling_draws_as_the_model_believes(model: Model) -> None:
    """Of many draws in one state each token comes as often as it is probable."""
    count = 4_000
    step = Step(
        observation=np.zeros((count, 2), np.float32),
        reward=np.zeros(count),
        terminated=np.zeros(count, bool),
        truncated=np.zeros(count, bool),
        is_first=np.ones(count, bool),
        seed=np.arange(count),
    )
    policy = model.policy(None, **WAYS[SAMPLING])
    _, actions = policy.act(policy.initial(count), step)
    tokens = model.discretizer.encode(torch.from_numpy(actions), first=2)[:, 0]
    drawn = np.bincount(tokens.numpy(), minlength=8) / count
    seen = model.discretizer.encode(torch.zeros(1, 2))
    logits = model.logits(model.hidden(seen))[0, -1, :8]
    np.testing.assert_allclose(drawn, torch.softmax(logits, 0).detach().numpy(), atol=0.03)


def test_further_ways_train_nothing_again(tmp_path: Path) -> None:
    context = Context(
        scale_name="debug",
        scale=imitation.EXPERIMENT.scales["debug"],
        seeds=(0,),
        algorithms=imitation.EXPERIMENT.algorithms,
        folder=tmp_path,
    )
    planner, cloning = context.algorithms
    assert list(imitation.further_ways(context, planner)) == [SAMPLING, SEARCH]
    assert imitation.further_ways(context, cloning) == {}
    trained = imitation.training(context, planner, "hopper", data="somewhere", seed=0)
    assert trained.arguments[-6:] == (
        *("--policy.search", "likelihood", "--policy.beam-width", "1", "--policy.horizon", "1"),
    )
    further = context.evaluation("sampling", of=trained, episodes=4, policy=WAYS[SAMPLING])
    assert further.evaluates == trained.name
    assert further.name == f"{trained.name}-sampling"
    assert further.command.startswith(f"trajlm evaluate runs/{trained.name} --episodes 4 ")
    assert "--policy.cdf-action None" in further.command


def row(returns: list[float], *, seconds: float = 1.0) -> dict[str, Any]:
    return {"returns": returns, "timing": {"model_seconds": seconds, "steps": 100.0}}


def test_shares_are_of_the_behaviour_and_costs_of_a_plan() -> None:
    behaviour = {"mean": 200.0, "interval": (190.0, 210.0), "episodes": 9}
    recipe = f"{imitation.PLANNER}/small"
    rows = [row([100.0, 300.0]), row([150.0, 150.0], seconds=3.0)]
    found = ways.row_of(recipe, "hopper", SEARCH, rows, behaviour, name="TT", alone=7.0)
    assert found["method"] == "TT, search"
    assert found["seeds"] == [100.0, 75.0]
    assert found["mean"] == 87.5
    assert found["lowest"] == 100.0
    assert found["interval_kind"].endswith("training seeds")
    assert found["milliseconds"] == pytest.approx(20.0)
    assert found["published"] == 104.0
    one = ways.row_of(recipe, "halfcheetah", GREEDY, rows[:1], behaviour, name="TT", alone=7.0)
    assert one["interval"] == (50.0, 150.0)
    assert one["interval_kind"].endswith("episodes")
    assert one["published"] is None


def test_recipes_of_one_algorithm_are_told_apart() -> None:
    names = titles(["behavior_cloning/small", f"{imitation.PLANNER}/small"])
    assert names["behavior_cloning/small"] == "BC"
    several = [f"{imitation.PLANNER}/small", f"{imitation.PLANNER}/hopper"]
    assert [name.rpartition(", ")[2] for name in titles(several).values()] == ["small", "hopper"]


def test_search_is_ahead_only_where_intervals_are_apart() -> None:
    def found(body: str, way: str, mean: float) -> dict[str, Any]:
        return {
            "recipe": "r", "body": body, "way": way, "mean": mean, "milliseconds": mean,
            "interval": (mean - 4.0, mean + 4.0),
        }  # fmt: skip

    rows = [found(body, GREEDY, 50.0) for body in ("a", "b", "c")]
    searched = {
        body: found(body, SEARCH, mean) for body, mean in (("a", 100.0), ("b", 55.0), ("c", 25.0))
    }
    told = imitation.taken(rows, searched)
    assert "on 1 of 3 bodies and less on 1" in told
    assert "0 to 2 times" in told
