"""Rollouts of a token model: what is in sight, given actions, and the Markovian one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Past
from trajlm.data.sources.synthetic import synthetic

CONFIG = Config(transitions=4, num_bins=12, width=16, num_layers=2, num_heads=2)
STORE = synthetic("bounds", episodes=12, seed=0)


def built(config: Config) -> Model:
    torch.manual_seed(0)
    model = Model.build(config, STORE.spec, Model.prepare(config, STORE).fitted)
    with torch.no_grad():
        for weight in model.parameters():  # so that what is seen matters
            weight.mul_(20 if weight.ndim > 1 else 1)
        model.position.normal_(0, 0.1)
    return model


def past_of(episode: int, *, known: int) -> Past:
    return Past(
        observations=STORE.rows("observations", episode)[None, :known],
        actions=STORE.rows("actions", episode)[None, : known - 1],
        rewards=STORE.rows("rewards", episode)[None, : known - 1],
    )


@torch.inference_mode()
def by_hand(model: Model, past: Past, *, context: int, horizon: int) -> np.ndarray:
    """The likeliest observations, the whole window run anew for each token."""
    layout = model.layout
    rows = np.zeros((past.observations.shape[1], layout.size), np.float32)
    rows[:, :3] = past.observations[0]
    rows[:-1, layout.actions] = past.actions[0]
    rows[:-1, layout.reward] = past.rewards[0]
    tokens = model.discretizer.encode(torch.from_numpy(rows)).flatten().tolist()
    tokens = tokens[: len(tokens) - layout.size + 3]
    found = []
    for _ in range(horizon):
        whole = len(tokens) // layout.size
        for _ in range(layout.size):
            seen = tokens[max(0, whole - context + 1) * layout.size :]
            logits = model.logits(model.hidden(torch.tensor([seen])))[0, -1]
            tokens.append(int(logits[: model.num_bins].argmax()))
        found.append(tokens[-3:])
    return model.discretizer.decode(torch.tensor(found)).numpy()


@pytest.mark.parametrize(("transitions", "context"), [(4, 3), (4, 1), (2, 1)])
def test_a_rollout_is_what_the_network_says_window_by_window(
    transitions: int, context: int
) -> None:
    model = built(replace(CONFIG, transitions=transitions))
    world = model.world_model(context=context)
    past = past_of(0, known=5)
    found = world.predict(past, horizon=6)
    expected = by_hand(model, past.last(context), context=context, horizon=6)
    np.testing.assert_array_equal(found.observations[0], expected)
    assert len(np.unique(expected, axis=0)) > 1


def test_a_markovian_model_forgets_and_one_with_context_does_not() -> None:
    model = built(CONFIG)
    one, other = past_of(0, known=3), past_of(1, known=3)
    other.observations[:, -1] = one.observations[:, -1]
    for context, same in ((1, True), (3, False)):
        world = model.world_model(context=context)
        first, second = (
            world.predict(past, horizon=3, seeds=np.array([4])).observations
            for past in (one, other)
        )
        assert np.array_equal(first, second) == same


def test_given_actions_are_followed_and_own_ones_lie_in_the_bounds() -> None:
    model = built(CONFIG)
    world = model.world_model()
    assert world.context == 3
    given = np.full((1, 4, 2), 2.5, np.float32)
    found = world.predict(past_of(0, known=2), horizon=4, actions=given)
    edges = model.discretizer.edges[model.layout.actions]
    width = (edges[:, 1:] - edges[:, :-1]).max().item()
    assert np.abs(found.actions - given).max() <= width
    own = world.predict(past_of(0, known=2), horizon=4, seeds=np.array([1]))
    assert (own.actions >= -2).all() and (own.actions <= 3).all()
    assert not np.array_equal(own.observations, found.observations)


def test_what_does_not_fit_is_refused() -> None:
    model = built(CONFIG)
    with pytest.raises(UsageError, match=r"context: 4 is not in 1\.\.3"):
        model.world_model(context=4)
    with pytest.raises(UsageError, match="chooses its own"):
        model.world_model().predict(past_of(0, known=1), horizon=1, actions=model.policy())
    with pytest.raises(UsageError, match="goal"):
        built(replace(CONFIG, goal="last")).world_model()
