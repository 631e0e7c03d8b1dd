"""A Decision Transformer that predicts returns: what it learns, foretells and asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trajlm.algorithms.decision_transformer.config import Config, PolicyConfig
from trajlm.algorithms.decision_transformer.model import Model
from trajlm.convert.decision_transformer import to_huggingface
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.core.spec import Discrete
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.nn.history import newest
from trajlm.sequence.loader import Loader

CONFIG = Config(
    context_length=4, width=16, num_layers=2, dropout=0.0, predict_returns=True, return_bins=2,
    from_start=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def store() -> TrajectoryStore:
    """Episodes of 4 steps: the first observation says whether a 1 is paid at the end."""
    episodes = [
        Trajectory(
            columns={
                "observations": np.array([pays, 2, 2, 2, 2]),
                "actions": np.array([n % 3] * 4),
                "rewards": np.array([0.0, 0.0, 0.0, pays], np.float32),
            },
            terminated=True,
            truncated=False,
        )
        for n in range(24)
        for pays in (0, 1)
    ]
    return TrajectoryStore.from_trajectories(
        episodes, observation_space=Discrete(n=3), action_space=Discrete(n=3)
    )


@pytest.fixture(scope="module")
def trained(store: TrajectoryStore) -> Model:
    torch.manual_seed(0)
    prepared = Model.prepare(CONFIG, store)
    model = Model.build(CONFIG, prepared.store.spec, prepared.fitted)
    loader = Loader(prepared.store, Model.windows(CONFIG, store.spec), batch_size=16, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        optimizer.zero_grad()
        model(loader.batch(step)).value.backward()
        optimizer.step()
    return model.eval()


def test_windows_begin_with_their_episode(store):
    prepared = Model.prepare(CONFIG, store)
    request = Model.windows(CONFIG, store.spec)
    for step in range(3):
        batch = Loader(prepared.store, request, batch_size=8, seed=1).batch(step)
        assert (batch.timesteps[:, 0] == 0).all() and batch.mask.all()
    usual = Model.windows(replace(CONFIG, from_start=False), store.spec)
    starts = Loader(prepared.store, usual, batch_size=64, seed=1).batch(0).timesteps[:, 0]
    assert set(starts.tolist()) == {0, 1, 2, 3}


def test_it_foretells_what_it_has_seen_and_remembers_it(trained):
    observations = torch.tensor([[0, 2, 2, 2], [1, 2, 2, 2]])
    expected = trained.foretell(
        observations=observations, actions=torch.zeros(2, 4, dtype=torch.int64),
        timesteps=torch.arange(4).expand(2, -1),
    )  # fmt: skip
    assert (expected[0] < 0.1).all() and (expected[1] > 0.9).all(), expected


def test_shown_returns_are_not_read_where_they_are_hidden(trained):
    def hidden(asked, known):
        return trained.hidden(
            returns_to_go=torch.full((1, 4), asked), observations=torch.tensor([[1, 2, 2, 2]]),
            actions=torch.zeros(1, 4, dtype=torch.int64), timesteps=torch.arange(4)[None],
            known=torch.tensor([known]),
        )  # fmt: skip

    assert torch.equal(hidden(0.0, False), hidden(1.0, False))
    assert not torch.allclose(hidden(0.0, True), hidden(1.0, True))


def test_losses_are_of_different_windows(trained, store):
    prepared = Model.prepare(CONFIG, store)
    batch = Loader(prepared.store, Model.windows(CONFIG, store.spec), batch_size=8, seed=0).batch(0)
    loss = trained(batch)
    assert set(loss.metrics) == {"loss", "action_loss", "return_loss"}
    assert torch.isclose(loss.value, loss.metrics["action_loss"] + loss.metrics["return_loss"])
    returns = batch.columns["returns_to_go"].clone()
    returns[0::4] = 1.0 - returns[0::4]  # of the windows in which returns are hidden
    changed = trained(replace(batch, columns={**batch.columns, "returns_to_go": returns}))
    assert torch.equal(changed.metrics["action_loss"], loss.metrics["action_loss"])
    assert changed.metrics["return_loss"] > loss.metrics["return_loss"]


def first_step(observations):
    count = len(observations)
    return Step(
        observation=np.array(observations), reward=np.zeros(count), terminated=np.zeros(count, bool),
        truncated=np.zeros(count, bool), is_first=np.ones(count, bool), seed=np.arange(count),
    )  # fmt: skip


def test_with_a_prior_it_asks_for_what_it_finds_likely(trained):
    policy = trained.policy(return_prior=1.0)
    carry, _ = policy.act(policy.initial(2), first_step([0, 1]))
    assert carry.remaining[:, -1].tolist() == [0.0, 1.0]
    later = replace(first_step([2, 2]), is_first=np.zeros(2, bool))
    carry, _ = policy.act(carry, later)
    assert carry.remaining[:, -1].tolist() == [0.0, 1.0]
    usual = trained.policy()
    carry, _ = usual.act(usual.initial(2), first_step([0, 1]))
    assert carry.remaining[:, -1].tolist() == [1.0, 1.0]


def test_a_target_is_the_most_it_asks_for(trained):
    policy = trained.policy(return_prior=1.0)
    asked = Condition(target_return=np.array([0.0, 0.0]))
    carry, _ = policy.act(policy.initial(2, asked), first_step([0, 1]))
    assert carry.remaining[:, -1].tolist() == [0.0, 0.0]


def test_a_model_without_the_head_says_so(store):
    config = replace(CONFIG, predict_returns=False)
    prepared = Model.prepare(config, store)
    model = Model.build(config, prepared.store.spec, prepared.fitted)
    assert "return_range" not in prepared.fitted
    with pytest.raises(UsageError, match="predicts no returns"):
        model.policy(PolicyConfig(return_prior=1.0))
    with pytest.raises(UsageError, match="predicts no returns"):
        model.foretell(
            observations=torch.zeros(1, 4, dtype=torch.int64),
            actions=torch.zeros(1, 4, dtype=torch.int64), timesteps=torch.arange(4)[None],
        )  # fmt: skip


def test_bins_and_priors_out_of_range_are_refused():
    with pytest.raises(UsageError, match="return_bins"):
        Config(return_bins=1)
    with pytest.raises(UsageError, match="return_prior"):
        PolicyConfig(return_prior=-1.0)


def test_a_model_that_predicts_returns_is_not_exported_in_part(trained):
    with pytest.raises(UsageError, match="predicts returns"):
        to_huggingface(trained)


def test_the_initial_deviation_reaches_every_weight(store):
    prepared = Model.prepare(CONFIG, store)
    for deviation in (0.02, 0.25):
        config = replace(CONFIG, width=64, initial_deviation=deviation)
        model = Model.build(config, prepared.store.spec, prepared.fitted)
        for weight in (model.embed_timestep.weight, model.transformer.blocks[0].mlp_input.weight):
            assert weight.std().item() == pytest.approx(deviation, rel=0.2)


# ---- steps counted from the window's first --------------------------------------------------------


def late_and_early(config, store):
    """A model's losses of windows at the end and, of equal contents, at the start of episodes."""
    torch.manual_seed(0)
    prepared = Model.prepare(config, store)
    model = Model.build(config, prepared.store.spec, prepared.fitted).eval()
    request = replace(Model.windows(config, store.spec), length=2)
    early = Loader(prepared.store, request, batch_size=8, seed=0).batch(0)
    late = replace(early, timesteps=torch.where(early.mask, early.timesteps + 2, 0))
    return model(early).value, model(late).value


def test_steps_of_a_window_may_be_counted_from_its_first(store):
    early, late = late_and_early(CONFIG, store)
    assert not torch.equal(early, late)
    early, late = late_and_early(replace(CONFIG, window_timesteps=True), store)
    assert torch.equal(early, late)


def test_acting_counts_as_learning_does_past_the_context(store):
    config = replace(CONFIG, window_timesteps=True, context_length=3)
    torch.manual_seed(0)
    prepared = Model.prepare(config, store)
    model = Model.build(config, prepared.store.spec, prepared.fitted)
    policy = model.policy()
    carry, step = policy.initial(1), first_step([0])
    for number in range(5):
        fresh = np.array([number == 0])
        carry, _ = policy.act(carry, replace(step, is_first=fresh))
        seen = min(number + 1, 3)
        hidden = model.hidden(
            returns_to_go=carry.remaining[:, -seen:],
            observations=newest(carry.observations, seen),
            actions=carry.actions[:, -seen:],
            timesteps=torch.arange(seen)[None],
            last_only=True,
        )
        torch.testing.assert_close(policy._hidden(carry), hidden[:, 0])
