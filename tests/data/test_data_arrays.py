"""Flat arrays, lists of episodes, `.npz` files and the synthetic kinds."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.core.errors import DataError, UsageError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, leaves
from trajlm.data.findings import findings_of
from trajlm.data.load import load_dataset
from trajlm.data.sources.arrays import (
    cut,
    from_arrays,
    from_episodes,
    guess_action_space,
    limit_timeouts,
)
from trajlm.data.sources.synthetic import KINDS, synthetic


def flat(rows: int = 10, **changes: Any) -> dict[str, Any]:
    arrays = {
        "observations": np.arange(3.0 * rows).reshape(rows, 3),
        "actions": np.linspace(-1, 1, 2 * rows).reshape(rows, 2),
        "rewards": np.ones(rows),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    }
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


def flags(rows: int, *places: int) -> np.ndarray:
    found = np.zeros(rows, bool)
    found[list(places)] = True
    return found


def test_rows_are_cut_after_end_flags() -> None:
    store = from_arrays(flat(terminals=flags(10, 3), timeouts=flags(10, 6)))
    assert store.lengths.tolist() == [4, 3, 3]
    assert store.terminated.tolist() == [True, False, False]
    assert store.truncated.tolist() == [False, True, False]
    assert store.unfinished.tolist() == [False, False, True]
    assert store.rows("observations", 1)[0].tolist() == [12.0, 13.0, 14.0]


def test_a_terminal_has_priority_over_a_timeout() -> None:
    store = from_arrays(flat(terminals=flags(10, 4, 9), timeouts=flags(10, 4)))
    assert store.terminated.tolist() == [True, True]
    assert not store.truncated.any()
    assert [f.rule for f in findings_of(store.metadata)] == ["D004"]


def test_without_timeouts_the_step_limit_cuts() -> None:
    arrays = flat(terminals=flags(10, 1), timeouts=None)
    assert from_arrays(arrays).lengths.tolist() == [2, 8]
    store = from_arrays(arrays, step_limit=3)
    assert store.lengths.tolist() == [2, 3, 3, 2]
    assert store.truncated.tolist() == [False, True, True, False]
    assert store.unfinished.tolist() == [False, False, False, True]


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 7))
def test_the_limit_equals_a_counter(terminals: list[bool], limit: int) -> None:
    array = np.array(terminals)
    expected, count = [], 0
    for terminal in terminals:
        count += 1
        expected.append(count == limit and not terminal)
        count = 0 if terminal or count == limit else count
    assert limit_timeouts(array, step_limit=limit).tolist() == expected
    ends, terminated, truncated, unfinished = cut(array, np.array(expected))
    assert (terminated.astype(int) + truncated + unfinished == 1).all()
    assert np.diff(ends, prepend=-1).max() <= limit


def test_next_observations_give_the_last_one() -> None:
    arrays = flat(terminals=flags(10, 3))
    arrays["next_observations"] = arrays["observations"] + 1000.0
    store = from_arrays(arrays)
    assert store.has_last_observation
    for episode, (start, stop) in enumerate([(0, 4), (4, 10)]):
        found = store.rows("observations", episode)
        np.testing.assert_array_equal(found[:-1], arrays["observations"][start:stop])
        np.testing.assert_array_equal(found[-1], arrays["next_observations"][stop - 1])


def test_a_column_of_width_one_is_flat() -> None:
    store = from_arrays(flat(rewards=np.ones((10, 1)), terminals=flags(10, 9)[:, None]))
    assert store.segments[0].columns["rewards"].shape == (10,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": None}, "no column 'rewards'; found actions"),
        ({"observations": None}, "no column 'observations'"),
        ({"rewards": np.ones((10, 2))}, "'rewards' has shape"),
        ({"actions": np.array([{}] * 10)}, "'actions' holds object"),
        ({"actions": [[1.0], [1.0, 2.0]]}, "'actions' holds object"),
        ({"terminals": np.array(True)}, r"shape \(\)"),
        ({"next_observations": np.zeros((10, 2))}, "next_observations has shape"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(flat(**change))


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        from_arrays(flat(0))


def test_action_bounds_are_guessed_and_the_guess_recorded() -> None:
    store = from_arrays(flat())
    assert store.action_space == Box(shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))
    assert "assumed" in str(store.metadata["action_bounds"])
    wide, how = guess_action_space(np.array([[0.0, -3.0], [2.0, 5.0]], np.float32))
    assert wide == Box(shape=(2,), low=(0.0, -3.0), high=(2.0, 5.0))
    assert "least and greatest" in how
    nan, _ = guess_action_space(np.array([[np.nan, 2.0], [2.0, 4.0]], np.float32))
    assert nan == Box(shape=(2,), low=(2.0, 4.0), high=(2.0, 4.0))


def test_integer_actions_are_counts() -> None:
    assert from_arrays(flat(actions=np.arange(10) % 4)).action_space == Discrete(n=4)
    assert from_arrays(flat(actions=np.arange(10)[:, None] % 4)).action_space == Discrete(n=4)
    two = np.stack([np.arange(10) % 4, np.arange(10) % 3], axis=1)
    assert from_arrays(flat(actions=two)).action_space == MultiDiscrete(nvec=(4, 3))


def test_nested_observations_become_leaves() -> None:
    nested = {"eye": np.zeros((10, 4, 4, 3), np.uint8), "arm": {"angle": np.zeros((10, 2))}}
    store = from_arrays(flat(observations=nested))
    assert isinstance(store.observation_space, DictSpace)
    names = set(leaves(store.observation_space, "observations"))
    assert names == {"observations/eye", "observations/arm/angle"}
    assert store.segments[0].columns["observations/eye"].dtype == np.uint8


def test_episodes_as_mappings() -> None:
    episode = {
        "observations": np.zeros((4, 2)),
        "actions": np.zeros((3, 1)),
        "rewards": np.ones(3),
        "terminations": [False, False, True],
        "truncations": [False, False, True],
        "seed": 7,
    }
    unended = {**episode, "terminations": False, "truncations": False}
    store = from_episodes([episode, unended])
    assert store.has_last_observation
    assert store.terminated.tolist() == [True, False]
    assert store.truncated.tolist() == [False, False]
    assert store.unfinished.tolist() == [False, True]
    assert store.seeds.tolist() == [7, 7]
    with pytest.raises(DataError, match="episode 1: column 'actions' has 2 rows"):
        from_episodes([episode, {**episode, "actions": np.zeros((2, 1))}])


# ---- .npz -----------------------------------------------------------------------------------


def test_npz_is_read_as_flat_rows(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **flat(terminals=flags(10, 4, 9)))
    store = load_dataset(str(path), env_id="Hopper-v5")
    assert (store.name, store.env_id, len(store)) == ("mine", "Hopper-v5", 2)


def test_objects_in_npz_are_never_unpickled(tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.npz", tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    np.savez(path, **flat(rewards=np.array([Evil()] * 10, object)))
    with pytest.raises(DataError, match="holds Python objects"):
        load_dataset(str(path))
    assert not marker.exists()


def test_an_npz_that_declares_a_huge_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = header.ljust(118 - 10) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        prefix = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("rewards.npy", prefix + header)
    with pytest.raises(DataError, match="declares shape"):
        load_dataset(str(path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"hello"])
def test_a_broken_npz_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.npz: damaged"):
        load_dataset(str(path))


# ---- synthetic ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"long", "halfcheetah"}))
def test_every_synthetic_kind_fits_its_spaces(name: str) -> None:
    store = load_dataset(f"synthetic:{name}")
    for side, space in (("observations", store.observation_space), ("actions", store.action_space)):
        for column, leaf in leaves(space, side).items():
            rows = store.segments[0].columns[column]
            assert rows.shape[1:] == leaf.shape
            assert np.dtype(leaf.dtype).kind == rows.dtype.kind
            if isinstance(leaf, Discrete):
                assert rows.min() >= leaf.start
                assert rows.max() < leaf.start + leaf.n
    assert store.terminated.any()
    assert (store.terminated ^ store.truncated).all()
    assert np.ptp(store.returns / store.lengths) > 0.3


def test_synthetic_data_repeat_and_differ_by_seed() -> None:
    assert synthetic("box").content_hash == synthetic("box").content_hash
    assert synthetic("box").content_hash != synthetic("box", seed=1).content_hash
    with pytest.raises(UsageError, match="did you mean 'discrete'"):
        load_dataset("synthetic:discret")
