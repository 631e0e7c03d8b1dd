"""Tokens are drawn from the right tokens, with the right frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.core.errors import UsageError
from trajlm.nn.sampling import Filter, draw
from trajlm.planning.beam import Slot, filtered

GRID = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000


def shares(logits: torch.Tensor, keep: Filter) -> np.ndarray:
    """(V,): how often each token is drawn over evenly spaced uniforms."""
    tokens = draw(logits.expand(len(GRID), -1), keep, GRID)
    return np.bincount(tokens.numpy(), minlength=logits.shape[-1]) / len(GRID)


def expected_shares(logits: np.ndarray, keep: Filter) -> np.ndarray:
    """Written out: the complement of the least likely tokens that hold at most `cdf`, and of what
    is left the `top_k` likeliest; of equal tokens the one with the higher number stays."""
    scaled = logits / keep.temperature
    mass = np.exp(scaled - scaled.max())
    mass /= mass.sum()
    rising = sorted(range(len(mass)), key=lambda token: (mass[token], token))
    kept = list(rising)
    if keep.cdf is not None:
        total = 0.0
        for token in rising[:-1]:
            total += mass[token]
            if total > keep.cdf:
                break
            kept.remove(token)
    if keep.top_k is not None:
        kept = kept[-keep.top_k :]
    found = np.zeros(len(mass))
    found[kept] = mass[kept] / mass[kept].sum()
    return found


@st.composite
def filters(draw_from):
    return Filter(
        top_k=draw_from(st.one_of(st.none(), st.integers(2, 12))),
        cdf=draw_from(st.one_of(st.none(), st.floats(0.0, 0.99))),
        temperature=draw_from(st.floats(0.2, 4.0)),
    )


@settings(max_examples=120, deadline=None)
@given(st.lists(st.integers(-400, 400), min_size=2, max_size=10, unique=True), filters())
def test_frequencies_are_those_of_the_kept_tokens(hundredths, keep) -> None:
    """Logits apart by more than rounding: ties have a test of their own."""
    row = torch.tensor(hundredths, dtype=torch.float64) / 100
    found, expected = shares(row, keep), expected_shares(row.numpy(), keep)
    np.testing.assert_allclose(found, expected, atol=1.1 / len(GRID))
    assert found[row.argmax()] > 0
    assert not found[expected == 0.0].any()


def test_the_share_left_out_by_hand() -> None:
    row = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    kept = {None: 4, 0.05: 4, 0.15: 3, 0.35: 2, 0.65: 1, 0.9: 1}
    for cdf, count in kept.items():
        assert (shares(row, Filter(cdf=cdf)) > 0).sum() == count
    # Of both, `cdf` is a share of the whole distribution, as published, not of the k likeliest.
    np.testing.assert_allclose(
        shares(row, Filter(cdf=0.35, top_k=2)), [0, 0, 3 / 7, 4 / 7], atol=1e-3
    )


def test_equal_tokens() -> None:
    """Uniform logits: the published filter loses all of them and then draws from all; not here."""
    row = torch.zeros(5, dtype=torch.float64)
    np.testing.assert_allclose(shares(row, Filter()), [0.2] * 5, atol=1e-3)
    np.testing.assert_allclose(shares(row, Filter(cdf=0.7)), [0, 0, 0, 0.5, 0.5], atol=1e-3)
    np.testing.assert_allclose(shares(row, Filter(top_k=2)), [0, 0, 0, 0.5, 0.5], atol=1e-3)
    for keep in (Filter(top_k=1), Filter(temperature=0.0)):
        assert keep.greedy
        assert shares(row, keep).tolist() == [1, 0, 0, 0, 0]
        assert draw(torch.tensor([[0.0, 3.0, 3.0, 1.0]]), keep, GRID[:1]).tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "keep", [Filter(), Filter(cdf=0.6), Filter(top_k=3), Filter(cdf=0.4, top_k=2)], ids=str
)
def test_the_ends_of_the_interval(dtype: torch.dtype, keep: Filter) -> None:
    """The smallest draw takes the least likely token that stays, the largest the likeliest; both
    are rounded in float32."""
    logits = torch.tensor([[2.0, -60.0, 1.0, 0.5, 0.0]], dtype=dtype)
    ends = torch.tensor([2.0**-54, 1.0 - 2.0**-54], dtype=torch.float64)
    tokens = draw(logits.expand(2, -1), keep, ends)
    kept = np.flatnonzero(expected_shares(logits[0].double().numpy(), keep) > 1e-20)
    assert tokens[0] in kept
    assert tokens[1] == 0


def test_rows_are_drawn_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator)
    uniforms = torch.rand(50, generator=generator, dtype=torch.float64)
    keep = Filter(cdf=0.4, temperature=1.3)
    together = draw(logits, keep, uniforms)
    assert together.dtype == torch.int64
    for row in range(50):
        assert draw(logits[row : row + 1], keep, uniforms[row : row + 1]) == together[row]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-400, 400), min_size=2, max_size=10, unique=True), filters())
def test_a_likelihood_search_keeps_the_same_tokens(hundredths, keep) -> None:
    """And counts them by what is left, as published."""
    row = torch.tensor([hundredths], dtype=torch.float64) / 100
    slot = Slot(index=0, keep=keep, allowed=len(hundredths))
    found = filtered(row, slot)[0].exp().numpy()
    np.testing.assert_allclose(found, expected_shares(row[0].numpy(), keep), atol=1e-9)


@pytest.mark.parametrize(
    "facts",
    [
        {"top_k": 0},
        {"cdf": 1.0},
        {"cdf": -0.1},
        {"temperature": -1.0},
        {"temperature": float("inf")},
    ],
)
def test_filters_that_make_no_sense_are_refused(facts: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(facts))):
        Filter(**facts)
