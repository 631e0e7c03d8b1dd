"""The behaviour in a model's bins: probabilities are those of its clipped noise, and it acts by the likeliest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trajlm.collect.behaviour import GaussianBehaviour, load_behaviour
from trajlm.core.protocols import Step
from trajlm.nn.discretizer import Discretizer, fit_bins
from trajlm.reproduce.imitation_ceiling import BinnedBehaviour


@pytest.fixture(scope="module")
def binned() -> BinnedBehaviour:
    """Hopper's expert, with bins of states near its normaliser's and the actions it takes there."""
    behaviour = load_behaviour("hopper", "expert")
    assert isinstance(behaviour, GaussianBehaviour)
    states = seen(behaviour, 3_000)
    rows = np.concatenate([states, actions_of(behaviour, states)], axis=1)
    bins = Discretizer(rows.shape[1], 20)
    bins.fit(
        {
            f"b/{name}": each
            for name, each in fit_bins(rows, num_bins=20, method="quantile").items()
        },
        "b",
    )
    return BinnedBehaviour(behaviour=behaviour, bins=bins)


def seen(behaviour: GaussianBehaviour, count: int, *, seed: int = 0) -> np.ndarray:
    actor, generator = behaviour.actor, np.random.default_rng(seed)
    drawn = actor.mean + actor.std * generator.normal(size=(count, len(actor.mean)))
    return drawn.astype(np.float32)


def step_of(observation: np.ndarray) -> Step:
    count = len(observation)
    over = np.zeros(count, bool)
    return Step(
        observation=observation, reward=np.zeros(count), terminated=over, truncated=over,
        is_first=np.ones(count, bool), seed=np.arange(count),
    )  # fmt: skip


def actions_of(policy: Any, observation: np.ndarray) -> np.ndarray:
    step = step_of(observation)
    return np.asarray(policy.act(policy.initial(len(observation)), step)[1])


def test_probabilities_are_those_of_drawn_actions(binned: BinnedBehaviour) -> None:
    state = seen(binned.behaviour, 1, seed=5)
    entries = torch.from_numpy(state)
    represented = binned.bins.decode(binned.bins.encode(entries)).numpy()
    drawn = actions_of(binned.behaviour, np.repeat(represented, 20_000, axis=0))
    tokens = binned.bins.encode(torch.from_numpy(drawn), first=state.shape[1]).numpy()
    found = binned.probabilities(state)[0]
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, rtol=1e-6)
    for entry, own in enumerate(found):
        often = np.bincount(tokens[:, entry], minlength=20) / len(tokens)
        np.testing.assert_allclose(often, own, atol=0.015)


def test_it_acts_by_the_likeliest_bin(binned: BinnedBehaviour) -> None:
    states = seen(binned.behaviour, 50, seed=6)
    acted = actions_of(binned, states)
    tokens = binned.bins.encode(torch.from_numpy(acted), first=states.shape[1]).numpy()
    likeliest = binned.probabilities(states)
    own = np.take_along_axis(likeliest, tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(own, likeliest.max(axis=-1), rtol=1e-6)


def test_its_own_actions_cost_less_than_another_s(binned: BinnedBehaviour) -> None:
    states = seen(binned.behaviour, 500, seed=7)
    actions = actions_of(binned.behaviour, states)
    own, other = (binned.nats(states, each).mean() for each in (actions, actions[::-1].copy()))
    assert 0.0 < own < other
