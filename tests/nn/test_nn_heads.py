"""Heads and encoders of every kind of action and observation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.core.errors import UsageError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete
from trajlm.nn.encoders import action_encoder, encoder
from trajlm.nn.features import features
from trajlm.nn.heads import CategoricalHead, action_head

WIDTH = 8
SEEDS, STEPS = np.arange(4000), np.full(4000, 3)


def head_with_logits(space: Discrete | MultiDiscrete, logits: list[float]) -> CategoricalHead:
    """A head whose logits are these, whatever the hidden state."""
    head = action_head(space, WIDTH)
    assert isinstance(head, CategoricalHead)
    torch.nn.init.zeros_(head.linear.weight)
    with torch.no_grad():
        head.linear.bias.copy_(torch.tensor(logits))
    return head


def test_discrete_loss_is_the_cross_entropy_counted_from_the_start() -> None:
    head = head_with_logits(Discrete(n=3, start=5), [0.0, 1.0, 2.0])
    loss = head.loss(torch.zeros(1, 3, WIDTH), torch.tensor([[5, 6, 7]]))
    expected = -torch.log_softmax(torch.tensor([0.0, 1.0, 2.0]), 0)
    assert loss[0].tolist() == pytest.approx(expected.tolist())


def test_multidiscrete_loss_is_the_mean_over_entries() -> None:
    head = head_with_logits(MultiDiscrete(nvec=(2, 3)), [0.0, 1.0, 0.0, 0.0, 4.0])
    loss = head.loss(torch.zeros(1, 1, WIDTH), torch.tensor([[[1, 2]]]))
    first = -torch.log_softmax(torch.tensor([0.0, 1.0]), 0)[1]
    second = -torch.log_softmax(torch.tensor([0.0, 0.0, 4.0]), 0)[2]
    assert loss.item() == pytest.approx(((first + second) / 2).item())


def test_temperature_zero_takes_the_likeliest() -> None:
    head = head_with_logits(MultiDiscrete(nvec=(2, 3)), [0.0, 1.0, 0.0, 3.0, 2.0])
    chosen = head.choose(torch.zeros(2, WIDTH), temperature=0.0, seed=SEEDS[:2], step=STEPS[:2])
    assert chosen.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    logits = [0.0, 1.0, -0.5]
    head = head_with_logits(Discrete(n=3, start=1), logits)
    drawn = head.choose(
        torch.zeros(len(SEEDS), WIDTH), temperature=temperature, seed=SEEDS, step=STEPS
    )
    shares = np.bincount(drawn.numpy() - 1, minlength=3) / len(SEEDS)
    expected = torch.softmax(torch.tensor(logits) / temperature, 0).numpy()
    assert np.abs(shares - expected).max() < 0.03  # four deviations of 4,000 draws


def test_a_draw_depends_on_its_episode_and_step_alone() -> None:
    head = head_with_logits(Discrete(n=5), [0.0] * 5)
    hidden = torch.zeros(6, WIDTH)
    together = head.choose(hidden, temperature=1.0, seed=SEEDS[:6], step=np.arange(6))
    for slot in (4, 1):
        alone = head.choose(
            hidden[:1], temperature=1.0, seed=SEEDS[slot : slot + 1], step=np.array([slot])
        )
        assert alone[0] == together[slot]


def test_continuous_actions_are_not_drawn() -> None:
    head = action_head(Box(shape=(2,), low=(-1.0, 0.0), high=(1.0, 10.0)), WIDTH)
    with pytest.raises(UsageError, match="temperature"):
        head.choose(torch.zeros(1, WIDTH), temperature=1.0, seed=SEEDS[:1], step=STEPS[:1])


@given(st.integers(1, 6), st.integers(-3, 3))
@settings(max_examples=20, deadline=None)
def test_each_value_of_a_discrete_space_has_its_own_vector(n: int, start: int) -> None:
    space = Discrete(n=n, start=start)
    values = torch.arange(start, start + n)[None]
    vectors = encoder(space, WIDTH, name="observations", fitted={})(values)
    assert vectors.shape == (1, n, WIDTH)
    assert len({tuple(v) for v in vectors[0].tolist()}) == n
    one_hot = features(space, name="observations", fitted={})(values)
    assert one_hot[0].tolist() == torch.eye(n).tolist()


def test_padding_outside_the_space_is_harmless() -> None:
    """Zeros stand where a window ends; a space that counts from 1 has no zero."""
    space = Discrete(n=3, start=1)
    assert action_encoder(space, WIDTH)(torch.zeros(1, 2, dtype=torch.long)).isfinite().all()
    loss = action_head(space, WIDTH).loss(torch.zeros(1, 2, WIDTH), torch.zeros(1, 2).long())
    assert loss.isfinite().all()


def test_features_of_a_dict_stand_side_by_side() -> None:
    space = DictSpace(subspaces={"room": Discrete(n=3), "keys": MultiDiscrete(nvec=(2, 2))})
    built = features(space, name="observations", fitted={})
    observation = {"room": torch.tensor([[2]]), "keys": torch.tensor([[[1, 0]]])}
    assert built.size == 7
    assert built(observation)[0, 0].tolist() == [0, 0, 1, 0, 1, 1, 0]
