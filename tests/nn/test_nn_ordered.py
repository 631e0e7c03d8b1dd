"""Ordered first weights: as large as asked, and alike where bins are neighbours."""

from __future__ import annotations

import pytest
import torch

from trajlm.nn.ordered import order_bins


@pytest.mark.parametrize("deviation", [0.02, 0.5])
def test_they_have_the_deviation_that_is_asked_for(deviation: float) -> None:
    torch.manual_seed(0)
    weight = torch.empty(6, 40, 64)
    order_bins(weight, deviation=deviation)
    assert weight.square().mean().sqrt().item() == pytest.approx(deviation, rel=0.1)


def test_neighbours_are_alike_and_ends_are_not() -> None:
    torch.manual_seed(0)
    weight = torch.empty(4, 100, 256)
    order_bins(weight, deviation=1.0)

    def likeness(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cosine_similarity(one, other, dim=-1).mean(0)

    assert likeness(weight[:, 1:], weight[:, :-1]).min() > 0.9
    assert likeness(weight[:, 0], weight[:, -1]).abs() < 0.9
    entries = torch.nn.functional.cosine_similarity(weight[0], weight[1], dim=-1)
    assert entries.abs().max() < 0.5
