"""Statistics and the summary, against NumPy over all rows at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.core.errors import DataError
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data import statistics
from trajlm.data.load import load_dataset
from trajlm.data.statistics import column_statistics, constant_dimensions
from trajlm.data.store import TrajectoryStore
from trajlm.data.summary import summarize


def store_of(lengths: list[int], *, scale: float = 1.0, base: float = 0.0) -> TrajectoryStore:
    rng = np.random.default_rng(len(lengths))
    trajectories = [
        Trajectory(
            columns={
                "observations": (base + scale * rng.standard_normal((n + 1, 2))).astype("f4"),
                "actions": np.full((n, 1), 0.1, np.float32),
                "rewards": rng.standard_normal(n).astype("f4"),
            },
            terminated=True,
            truncated=False,
        )
        for n in lengths
    ]
    spaces = {"observation_space": Box(shape=(2,)), "action_space": Box(shape=(1,))}
    store = TrajectoryStore.from_trajectories(trajectories[:1], **spaces)
    return store.extend(trajectories[1:]) if trajectories[1:] else store


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7), st.data())
def test_streaming_equals_numpy(lengths: list[int], block: int, data: st.DataObject) -> None:
    store = store_of(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "BLOCK_ROWS", block)
        for view in (store, store.select(np.array(chosen))):
            rows = [view.rows("observations", e) for e in range(len(view))]
            expected = np.concatenate(rows).astype(np.float64)
            found = column_statistics(view, "observations")
            assert found.count == len(expected)
            np.testing.assert_allclose(found.mean, expected.mean(0), rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(found.std, expected.std(0), rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(found.low, expected.min(0))
            np.testing.assert_array_equal(found.high, expected.max(0))


def test_a_small_deviation_of_large_numbers_survives() -> None:
    store = store_of([500] * 8, base=1e6, scale=10.0)
    rows = np.concatenate([store.rows("observations", e) for e in range(8)]).astype(np.float64)
    np.testing.assert_allclose(
        column_statistics(store, "observations").std, rows.std(0), rtol=1e-10
    )


def test_a_constant_has_deviation_zero_exactly() -> None:
    found = column_statistics(store_of([7, 11, 3]), "actions")
    assert found.std.tolist() == [0.0]
    assert found.mean.tolist() == [float(np.float32(0.1))]
    assert constant_dimensions(found).tolist() == [0]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="no column 'goals'"):
        column_statistics(store_of([3]), "goals")


@pytest.mark.parametrize("name", ["box", "image", "discrete", "multidiscrete", "dict", "short"])
def test_a_summary_is_plain_json_of_every_kind(name: str) -> None:
    store = load_dataset(f"synthetic:{name}")
    page = json.loads(json.dumps(summarize(store), allow_nan=False))
    assert page["episodes"] == len(store)
    assert page["steps"] == store.num_steps
    assert page["hash"] == store.content_hash
    assert page["return_max"] == pytest.approx(store.returns.max())
    assert page["return_quantiles"]["0.5"] == pytest.approx(np.median(store.returns))
    assert sum(page["return_histogram"]["counts"]) == len(store)
    assert len(page["return_histogram"]["edges"]) == len(page["return_histogram"]["counts"]) + 1
    assert page["lengths"]["max"] == store.lengths.max()
    actions = store.segments[0].columns["actions"]
    assert page["action_range"] == [float(actions.min()), float(actions.max())]


def test_a_summary_of_bad_data_has_no_nan() -> None:
    store = load_dataset("synthetic:box")
    rewards = store.segments[0].columns["rewards"]
    rewards[3] = np.nan
    json.dumps(summarize(store), allow_nan=False)
    none = store.select(np.zeros(0, np.int64))
    page = summarize(none)
    assert page["episodes"] == 0
    assert page["return_quantiles"] == {}
    assert page["action_range"] == [None, None]
