"""The return head: nearest bins, means, and what it proposes under a prior and a ceiling."""

from __future__ import annotations

import math

import pytest
import torch

from trajlm.nn.returns import ReturnHead


@pytest.fixture
def head() -> ReturnHead:
    """Believes in returns -3, -2, -1 and 0 with 0.5, 0.3, 0.15 and 0.05, whatever is hidden."""
    head = ReturnHead(2, low=-3.0, high=0.0, bins=4)
    torch.nn.init.zeros_(head.linear.weight)
    head.linear.bias.data = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    return head


def test_the_loss_is_the_nearest_bins(head: ReturnHead) -> None:
    hidden = torch.zeros(1, 3, 2)
    loss = head.loss(hidden, torch.tensor([[-3.4, -1.9, 7.0]]))
    assert torch.allclose(loss, -torch.tensor([[0.5, 0.3, 0.05]]).log())


def test_the_mean_is_in_the_environments_units(head: ReturnHead) -> None:
    expected = -3 * 0.5 - 2 * 0.3 - 0.15
    assert torch.allclose(head.mean(torch.zeros(5, 2)), torch.full((5,), expected))


@pytest.mark.parametrize(
    ("prior", "ceiling", "expected"),
    [
        (0.0, 0.0, -3.0),  # the likeliest
        (1.0, 0.0, -2.0),  # 0.5 x 1, 0.3 x 2, 0.15 x 3, 0.05 x 4
        (10.0, 0.0, 0.0),
        (10.0, -1.0, -1.0),
        (10.0, -1.4, -1.0),  # a ceiling counts as its nearest bin
        (10.0, -9.0, -3.0),  # below all: the worst
        (10.0, math.inf, 0.0),
    ],
)
def test_a_proposal_is_likely_and_high(head, prior, ceiling, expected) -> None:
    asked = head.propose(torch.zeros(2, 2), ceiling=torch.full((2,), ceiling), prior=prior)
    assert asked.tolist() == [expected, expected]
