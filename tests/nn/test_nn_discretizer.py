"""Bins: every bin with data stands for something of its own, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trajlm.core.errors import DataError
from trajlm.nn.discretizer import Discretizer, encode_rows, fit_bins

LARGEST = float(np.finfo(np.float32).max)


def reals(largest: float = 1e6):
    return st.floats(-largest, largest, width=32, allow_subnormal=False)


COLUMNS = st.one_of(
    st.lists(reals(), min_size=1, max_size=60),
    st.lists(reals(LARGEST), min_size=1, max_size=20),
    # Ties; saturated actions; sparse rewards; integers; a constant; neighbours that barely differ.
    st.lists(st.sampled_from([-2.5, 0.0, 0.1, 3.0]), min_size=1, max_size=80),
    st.lists(
        st.one_of(st.sampled_from([-1.0, 1.0]), st.floats(-1, 1, width=32, allow_subnormal=False)),
        min_size=1,
        max_size=80,
    ),
    st.lists(st.one_of(st.just(0.0), st.just(0.0), st.just(0.0), reals(10)), min_size=1),
    st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=80),
    st.builds(lambda value, count: [value] * count, reals(), st.integers(1, 30)),
    st.lists(st.integers(0, 6).map(lambda n: float(np.float32(1e8) + 8 * n)), min_size=1),
)
METHODS = st.sampled_from(["quantile", "uniform"])


def fitted_on(column: list[float], num_bins: int, method: str) -> tuple[np.ndarray, Discretizer]:
    rows = np.array(column, np.float32)[:, None]
    fitted = fit_bins(rows, num_bins=num_bins, method=method)
    bins = Discretizer(1, num_bins)
    bins.fit({f"bins/{name}": array for name, array in fitted.items()}, "bins")
    return rows, bins


@settings(max_examples=300, deadline=None)
@given(COLUMNS, st.integers(2, 24), METHODS)
@example([-LARGEST, LARGEST, 0.0, 0.0], 4, "uniform")
@example([LARGEST, LARGEST, 0.9 * LARGEST], 5, "quantile")
def test_what_a_bin_stands_for_lies_in_it(column, num_bins, method) -> None:
    rows, bins = fitted_on(column, num_bins, method)
    assert torch.isfinite(bins.edges).all() and torch.isfinite(bins.values).all()
    assert (bins.edges.diff(dim=1) >= 0).all() and (bins.values.diff(dim=1) >= 0).all()
    tokens = bins.encode(torch.from_numpy(rows))
    assert tokens.min() >= 0 and tokens.max() < num_bins
    assert torch.equal(bins.encode(bins.decode(tokens)), tokens)
    decoded = bins.decode(tokens)
    assert decoded.min() >= rows.min() and decoded.max() <= rows.max()
    # The mean of what is in a bin, as far as float32 goes.
    for token in tokens.unique():
        inside = rows[tokens.numpy() == int(token)].astype(np.float64)
        np.testing.assert_allclose(
            bins.values[0, token], inside.mean(), rtol=1e-6, atol=1e-6 * np.abs(inside).max()
        )


@settings(max_examples=100, deadline=None)
@given(COLUMNS, st.integers(2, 24), METHODS, st.lists(reals(LARGEST), min_size=1, max_size=30))
def test_numpy_and_torch_encode_alike_and_within_the_bins(column, num_bins, method, asked) -> None:
    """Values outside the fitted range too, and every edge."""
    rows, bins = fitted_on(column, num_bins, method)
    points = np.concatenate([np.array(asked, np.float32), bins.edges[0].numpy(), rows[:, 0]])[
        :, None
    ]
    theirs = encode_rows(points, bins.edges.numpy())
    assert theirs.dtype == np.uint8
    ours = bins.encode(torch.from_numpy(points))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.min() >= 0 and ours.max() < num_bins
    doubled = bins.double()
    np.testing.assert_array_equal(doubled.encode(torch.from_numpy(points)), theirs)


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.25, 1.0])
@pytest.mark.parametrize("num_bins", [5, 100])
def test_a_value_that_fills_a_bin_stands_for_itself_exactly(value: float, num_bins: int) -> None:
    rng = np.random.default_rng(0)
    others = rng.uniform(-1, 1, 1000)
    column = np.concatenate([others, np.full(1000, value)]).astype(np.float32)
    rng.shuffle(column)
    _, bins = fitted_on(column.tolist(), num_bins, "quantile")
    token = bins.encode(torch.tensor([[value]]))
    assert bins.decode(token).item() == value
    near = torch.tensor([[np.nextafter(np.float32(value), np.float32(2))]])
    if value < 1.0:
        assert bins.encode(near) != token


def test_a_far_value_drags_no_bin() -> None:
    """A termination penalty among rewards near 1: their bins stay near 1 (12)."""
    column = [*np.linspace(0.9, 1.1, 1000).tolist(), -100.0]
    _, bins = fitted_on(column, 10, "quantile")
    tokens = bins.encode(torch.tensor([[1.0], [0.95], [-100.0]]))
    assert bins.decode(tokens)[:2, 0].tolist() == pytest.approx([1.0, 0.95], abs=0.03)
    assert (bins.values[0, 1:] > 0.9).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 40))),
    st.integers(-50, 50),
)
def test_integers_have_a_bin_each_without_any_data(case, start: int) -> None:
    count, num_bins = case
    fitted = fit_bins(
        np.zeros((1, 1), np.float32),
        num_bins=num_bins,
        method="quantile",
        integers=np.array([count]),
        starts=np.array([start]),
    )
    numbers = np.arange(start, start + count, dtype=np.float32)
    tokens = encode_rows(numbers[:, None], fitted["edges"])[:, 0]
    np.testing.assert_array_equal(tokens, np.arange(count))
    np.testing.assert_array_equal(fitted["values"][0, :count], numbers)
    assert (
        fitted["values"] < start + count
    ).all()  # no bin stands for a number that does not exist


def test_tokens_are_wide_enough_for_the_stop() -> None:
    rows = np.arange(600, dtype=np.float32)[:, None]
    for num_bins, dtype in ((255, np.uint8), (256, np.uint16)):
        edges = fit_bins(rows, num_bins=num_bins, method="quantile")["edges"]
        tokens = encode_rows(rows, edges)
        assert tokens.dtype == dtype
        assert int(tokens.max()) == num_bins - 1
        assert num_bins <= np.iinfo(dtype).max


def test_expectation_and_percentile_by_hand() -> None:
    bins = Discretizer(2, 3)
    bins.values[1] = torch.tensor([-1.0, 2.0, 10.0])
    probabilities = torch.tensor([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0], [0.2, 0.2, 0.1]])
    # The last row holds half of its mass elsewhere, which counts as 0.
    expected = [0.25 * -1 + 0.5 * 2 + 0.25 * 10, -1.0, -0.2 + 0.4 + 1.0]
    found = bins.expectation(probabilities, dimension=1)
    assert found.tolist() == pytest.approx(expected)
    assert bins.expectation(probabilities.double(), dimension=1).dtype == torch.float64
    percentiles = {
        10.0: [-1, -1, -1],
        25.0: [-1, -1, -1],
        50.0: [2, -1, 2],  # of the 0.5 that are there in the last row
        76.0: [10, -1, 2],
        100.0: [10, -1, 10],
    }
    for percent, values in percentiles.items():
        assert bins.percentile(probabilities, percent, dimension=1).tolist() == values


def test_expectation_is_not_rounded_by_reduced_precision() -> None:
    bins = Discretizer(1, 2)
    bins.values[0] = torch.tensor([300.7, 301.9])
    with torch.autocast("cpu", torch.bfloat16):
        found = bins.expectation(torch.tensor([[0.5, 0.5]]), dimension=0)
    assert found.item() == pytest.approx(301.3, abs=1e-3)


def test_dimensions_keep_their_own_bins() -> None:
    rows = np.stack([np.linspace(0, 1, 50), np.linspace(-9, 9, 50)], axis=1).astype(np.float32)
    fitted = fit_bins(rows, num_bins=5, method="uniform")
    bins = Discretizer(2, 5)
    bins.fit({f"b/{name}": array for name, array in fitted.items()}, "b")
    both = bins.encode(torch.from_numpy(rows).view(5, 10, 2))
    assert both.shape == (5, 10, 2)
    second = bins.encode(torch.from_numpy(rows[:, 1:]), first=1)
    assert torch.equal(both[..., 1].flatten(), second[:, 0])
    assert torch.equal(bins.decode(second, first=1), bins.decode(both)[..., 1:].view(50, 1))
    stop = torch.tensor([[5, 5]])
    assert torch.equal(bins.decode(stop), bins.values[:, -1][None])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(broken: float) -> None:
    rows = np.array([[0.0], [broken], [1.0]], np.float32)
    for method in ("quantile", "uniform", "published"):
        with pytest.raises(DataError, match="not finite"):
            fit_bins(rows, num_bins=2, method=method)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        fit_bins(np.zeros((0, 3), np.float32), num_bins=4, method="quantile")
    with pytest.raises(DataError, match="num_bins as many"):
        fit_bins(
            np.zeros((5, 1), np.float32), num_bins=4, method="quantile", integers=np.array([5])
        )
    # 150 rows give 75 published edges of every second row.
    with pytest.raises(
        DataError, match=r"150 rows give 75 published bins instead of 100.*quantile"
    ):
        fit_bins(np.zeros((150, 1), np.float32), num_bins=100, method="published")
    assert fit_bins(np.zeros((10_000, 1), np.float32), num_bins=100, method="published")
