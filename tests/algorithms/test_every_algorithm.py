"""What every algorithm found must do: each kind of data builds, learns and acts; what does not act
predicts, and refuses data that it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trajlm.algorithms.base import Algorithm
from trajlm.core.config import from_mapping
from trajlm.core.discovery import algorithms, find_recipe
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.core.spec import Box, leaves
from trajlm.data.sources.synthetic import synthetic
from trajlm.data.store import TrajectoryStore
from trajlm.evaluation.predictions import recorded_windows
from trajlm.sequence.loader import Loader

NAMES = list(algorithms())
ACTING = [name for name in NAMES if algorithms()[name].algorithm_class.acts]
KINDS = ["box", "bounds", "discrete", "multidiscrete", "dict", "short"]


def build(name: str, store: TrajectoryStore):
    entry, mapping = find_recipe(f"{name}/debug")
    config = from_mapping(entry.config_module.Config, mapping["model"])
    algorithm = entry.algorithm_class
    prepared = algorithm.prepare(config, store)
    torch.manual_seed(0)
    model = algorithm.build(config, store.spec, prepared.fitted)
    request = algorithm.windows(config, store.spec)
    return model, Loader(prepared.store, request, batch_size=32, seed=0)


def first_step(store: TrajectoryStore, count: int) -> Step:
    """The first observations of `count` episodes as the environments would show them."""
    named = {
        name.partition("/")[2]: np.stack([store.rows(name, e)[0] for e in range(count)])
        for name in leaves(store.observation_space, "observations")
    }
    return Step(
        observation=named.get("", named),
        reward=np.zeros(count),
        terminated=np.zeros(count, bool),
        truncated=np.zeros(count, bool),
        is_first=np.ones(count, bool),
        seed=np.arange(count),
    )


def learns(model: Any, loader: Loader) -> bool:
    """Whether updates on one batch lower its loss."""
    batch = loader.batch(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = model.eval()(batch).value.item()
    model.train()
    for _ in range(25):
        optimizer.zero_grad()
        model(batch).value.backward()
        optimizer.step()
    return model.eval()(batch).value.item() < before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ACTING)
def test_it_learns_and_acts_on_every_kind_of_data(name: str, kind: str) -> None:
    store = synthetic(kind, episodes=12, seed=0)
    model, loader = build(name, store)
    assert learns(model, loader)
    step, space = first_step(store, 3), store.action_space
    policy = model.policy()
    carry = policy.initial(3, Condition(target_return=np.full(3, store.spec.return_max)))
    for _ in range(2):
        carry, actions = policy.act(carry, step)
    assert actions.shape == (3, *space.shape)
    assert actions.dtype == np.dtype(space.dtype)
    if isinstance(space, Box):
        assert (actions >= -3).all() and (actions <= 3).all()
    else:
        sizes = np.array(getattr(space, "nvec", getattr(space, "n", None)))
        assert (actions >= 0).all() and (actions < sizes).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(ACTING)))
def test_what_does_not_act_learns_or_refuses_in_one_line(name: str, kind: str) -> None:
    store = synthetic(kind, episodes=12, seed=0)
    if not isinstance(store.observation_space, Box):
        with pytest.raises(UsageError, match=r"observations: \w+"):
            build(name, store)
        return
    model, loader = build(name, store)
    assert learns(model, loader)
    with pytest.raises(UsageError, match="has no policy"):
        model.policy()


@pytest.mark.parametrize("name", NAMES)
def test_what_predicts_continues_many_pasts_as_each_alone(name: str) -> None:
    store = synthetic("bounds", episodes=12, seed=0)
    model, _ = build(name, store)
    if type(model).world_model is Algorithm.world_model:
        with pytest.raises(UsageError, match="predicts no states"):
            model.world_model()
        return
    world = model.world_model()
    recorded = recorded_windows(store, known=world.context, horizon=4, count=3)
    asked = {"horizon": 4, "actions": recorded.actions}
    for seeds in (None, np.array([5, 6, 7])):
        together = world.predict(recorded.past, seeds=seeds, **asked)
        assert together.observations.shape == recorded.observations.shape
        assert np.isfinite(together.observations).all()
        assert together.actions.shape == recorded.actions.shape
        row = np.array([2])
        alone = world.predict(
            recorded.past.select(row),
            horizon=4,
            actions=recorded.actions[row],
            seeds=None if seeds is None else seeds[row],
        )
        np.testing.assert_allclose(alone.observations[0], together.observations[2], rtol=1e-4)
    again = world.predict(recorded.past, seeds=np.array([5, 6, 8]), **asked)
    assert np.array_equal(again.observations[:2], together.observations[:2])
    assert not np.array_equal(again.observations[2], together.observations[2])
    if not world.models_actions:
        with pytest.raises(UsageError, match="actions"):
            world.predict(recorded.past, horizon=2)


@pytest.mark.parametrize("name", ACTING)
def test_drawn_actions_are_the_same_batched_and_alone(name: str) -> None:
    store = synthetic("discrete", episodes=12, seed=0)
    model, _ = build(name, store)
    policy = model.policy(temperature=1.0)
    asked = Condition(target_return=np.zeros(6))
    together = policy.initial(6, asked)
    alone = policy.initial(1, asked.select(np.array([4])))
    everyone, one = first_step(store, 6), first_step(store, 6)
    one = one.select(np.array([4]))
    drawn = []
    for number in range(5):
        later = number > 0
        together, actions = policy.act(together, _at(everyone, first=not later))
        alone, single = policy.act(alone, _at(one, first=not later))
        assert single[0] == actions[4]
        drawn.append(actions.tolist())
    assert len({tuple(row) for row in drawn}) > 1  # a draw changes with the step


def _at(step: Step, *, first: bool) -> Step:
    return replace(step, is_first=np.full_like(step.is_first, first))
