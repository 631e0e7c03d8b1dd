"""D4RL's HDF5 form: what is read, what is refused, and that refusing comes before reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trajlm.core.errors import DataError
from trajlm.core.spec import Box
from trajlm.data.load import load_dataset
from trajlm.data.sources import hdf5
from trajlm.data.sources.d4rl import known_env_id, known_step_limit

h5py = pytest.importorskip("h5py")
ROWS = 12


def arrays(**changes: Any) -> dict[str, Any]:
    ends = np.zeros(ROWS, bool)
    ends[[3, 7]] = True
    found = {
        "observations": np.arange(3.0 * ROWS, dtype=np.float32).reshape(ROWS, 3),
        "actions": np.linspace(-1, 1, 2 * ROWS, dtype=np.float32).reshape(ROWS, 2),
        "rewards": np.arange(ROWS, dtype=np.float32),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": ends,
    }
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def write(path: Path, **changes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in arrays(**changes).items():
            file[name] = value
    return path


def test_a_file_becomes_episodes(tmp_path: Path) -> None:
    store = load_dataset(write(tmp_path / "mine.hdf5"), cache=False)
    assert store.lengths.tolist() == [4, 4, 4]
    assert store.truncated.tolist() == [True, True, False]
    assert store.unfinished.tolist() == [False, False, True]
    assert store.returns.tolist() == [6.0, 22.0, 38.0]
    assert not store.has_last_observation
    assert store.action_space == Box(shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))
    assert store.metadata["split"] == "timeouts"
    assert len(store.content_hash) == 64


def test_wide_columns_and_a_second_axis_of_one(tmp_path: Path) -> None:
    changed = arrays()
    path = write(
        tmp_path / "mine.hdf5",
        observations=changed["observations"].astype(np.float64),
        rewards=changed["rewards"][:, None].astype(">f8"),
        terminals=np.zeros((ROWS, 1), np.uint8),
    )
    store = load_dataset(path, cache=False)
    assert store.segments[0].columns["observations"].dtype == np.float32
    assert store.returns.tolist() == [6.0, 22.0, 38.0]


def test_without_timeouts_the_file_name_knows_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "pen-human-v0.hdf5", timeouts=None)
    assert load_dataset(path, cache=False).metadata["split"] == "terminals and a limit of 100 steps"
    path = write(tmp_path / "mine.hdf5", timeouts=None)
    assert load_dataset(path, cache=False).lengths.tolist() == [ROWS]
    limited = load_dataset(path, cache=False, step_limit=5)
    assert limited.lengths.tolist() == [5, 5, 2]
    assert limited.content_hash != load_dataset(path, cache=False).content_hash
    assert load_dataset(path, cache=False, env_id="Hopper-v4").lengths.tolist() == [ROWS]
    assert known_step_limit("Hopper-v5") == known_step_limit("walker2d_random-v0.hdf5") == 1000


def test_next_observations_are_read(tmp_path: Path) -> None:
    following = arrays()["observations"] + 100
    store = load_dataset(write(tmp_path / "a.hdf5", next_observations=following), cache=False)
    assert store.rows("observations", 1)[-1].tolist() == following[7].tolist()


def test_the_environment_id(tmp_path: Path) -> None:
    named = write(tmp_path / "hopper_medium-v2.hdf5")
    assert load_dataset(named, cache=False).env_id == "Hopper-v4"
    assert load_dataset(named, cache=False, env_id="Hopper-v5").env_id == "Hopper-v5"
    with h5py.File(named, "a") as file:
        file["metadata/env_id"] = "Hopper-v3"
    assert load_dataset(named, cache=False, env_id="Hopper-v5").env_id == "Hopper-v3"
    with h5py.File(named, "a") as file:
        file.attrs["env_id"] = "os:system"
    assert load_dataset(named, cache=False).env_id == "Hopper-v4"
    assert known_env_id("hopper_medium.hdf5") is None
    assert known_env_id("walker2d_medium_replay-v1.hdf5") == "Walker2d-v4"
    assert known_env_id("ant_medium-v2.hdf5") is None


def test_lengths_that_disagree_are_refused_and_kept_for_the_doctor(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.hdf5", rewards=np.ones(ROWS - 1))
    for on_bad in ("refuse", "drop-episode"):
        with pytest.raises(DataError, match=r"D002: columns disagree.*rewards 11"):
            load_dataset(path, cache=False, on_bad=on_bad)
    store = load_dataset(path, cache=False, on_bad="keep")
    assert store.num_steps == ROWS - 1


def test_nan_rewards_name_episode_and_step(tmp_path: Path) -> None:
    rewards = arrays()["rewards"]
    rewards[6] = np.nan
    path = write(tmp_path / "mine.hdf5", rewards=rewards)
    with pytest.raises(DataError, match="D001: rewards is nan at episode 1, step 2"):
        load_dataset(path, cache=False)
    dropped = load_dataset(path, cache=False, on_bad="drop-episode")
    assert dropped.metadata["dropped"] == [1]
    assert dropped.returns.tolist() == [6.0, 38.0]
    assert np.isnan(load_dataset(path, cache=False, on_bad="keep").returns[1])


# ---- hostile and broken files ---------------------------------------------------------------


def external_link(file: Any, other: Path) -> None:
    del file["rewards"]
    file["rewards"] = h5py.ExternalLink(str(other), "/rewards")


def soft_link(file: Any, other: Path) -> None:
    del file["rewards"]
    file["rewards"] = h5py.SoftLink("/actions")


def external_storage(file: Any, other: Path) -> None:
    del file["rewards"]
    size = ROWS * 8
    file.create_dataset("rewards", (ROWS,), "f8", external=[(str(other), 0, size)])


def virtual_dataset(file: Any, other: Path) -> None:
    del file["rewards"]
    layout = h5py.VirtualLayout((ROWS,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "rewards", (ROWS,))
    file.create_virtual_dataset("rewards", layout)


def strings(file: Any, other: Path) -> None:
    del file["rewards"]
    file["rewards"] = ["a"] * ROWS


def huge_shape(file: Any, other: Path) -> None:
    del file["rewards"]
    file.create_dataset("rewards", (10**12,), "f8", chunks=(1024,))


def bomb(file: Any, other: Path) -> None:
    del file["rewards"]
    file.create_dataset("rewards", (2 * 10**8,), "f8", chunks=(1024,))


def group_instead(file: Any, other: Path) -> None:
    del file["terminals"]
    file.create_group("terminals")


def compound(file: Any, other: Path) -> None:
    del file["rewards"]
    file["rewards"] = np.zeros(ROWS, [("a", "f4"), ("b", "f4")])


HOSTILE: dict[Callable[[Any, Path], None], str] = {
    external_link: "soft or external link",
    soft_link: "soft or external link",
    external_storage: "stored in another file",
    virtual_dataset: "virtual dataset",
    strings: "not numbers",
    compound: "not numbers",
    huge_shape: "above the budget",
    bomb: "no honest compression",
    group_instead: "no column 'terminals'",
}


@pytest.mark.parametrize("attack", HOSTILE, ids=lambda attack: attack.__name__)
def test_hostile_files_are_refused_before_reading(
    tmp_path: Path, attack: Callable[[Any, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write(tmp_path / "secret.hdf5")
    path = write(tmp_path / "mine.hdf5")
    with h5py.File(path, "a") as file:
        attack(file, other)
    read: list[str] = []
    original = hdf5.Hdf5.read_into

    def noting(self: Any, source: Any, array: np.ndarray) -> None:
        assert source.shape != (10**12,)
        read.append(str(source.shape))
        original(self, source, array)

    monkeypatch.setattr(hdf5.Hdf5, "read_into", noting)
    with pytest.raises(DataError, match=HOSTILE[attack]) as caught:
        load_dataset(path, cache=False)
    assert len(str(caught.value).splitlines()) == 1
    assert "mine" in str(caught.value)
    if "link" in attack.__name__:
        assert not read


def test_an_unknown_filter_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.hdf5")
    with h5py.File(path, "a") as file:
        del file["rewards"]
        # Filter 6 (scale and offset) is in the library: it stands for any that is not listed.
        file.create_dataset("rewards", data=np.ones(ROWS, "i4"), chunks=(4,), scaleoffset=3)
    with pytest.raises(DataError, match="needs the HDF5 filter 6"):
        load_dataset(path, cache=False)


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.hdf5")
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DataError, match=r"mine\.hdf5: damaged HDF5, fetch it again"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.hdf5", b"", "the file is empty"),
        ("text.hdf5", b"hello", "no HDF5 file"),
        ("mine.pkl", b"\x80\x04.", "pickles"),
        ("mine.npy", b"\x93NUMPY", "pickles and archives"),
    ],
)
def test_files_of_other_kinds_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / name)


def test_an_hdf5_that_is_no_dataset_says_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(DataError, match=r"no 'observations' in it.*it holds weights"):
        load_dataset(tmp_path / "other.hdf5")


@pytest.mark.parametrize("reference", ["nothing.hdf5", "no/such/folder", "a\0b", "~nobody/x"])
def test_a_missing_file_names_the_forms(reference: str) -> None:
    with pytest.raises(DataError):
        load_dataset(reference)


def test_a_locked_file_is_said_to_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mine.hdf5")
    monkeypatch.setattr(hdf5, "LOCK_WAIT_S", 0.01)

    def locked(*_: object) -> None:
        raise BlockingIOError(11, "unable to lock file, errno = 11")

    monkeypatch.setattr(h5py, "File", locked)
    with pytest.raises(DataError, match="another process is writing"):
        load_dataset(path)


# ---- real files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "episodes", "return_mean", "dims"),
    [("halfcheetah_medium_expert", 100, 8309.2, 17), ("hopper_medium", 177, 1755.1, 11)],
)
def test_a_file_of_third_party_agents(
    name: str, episodes: int, return_mean: float, dims: int
) -> None:
    folder = os.environ.get("TRAJLM_TEST_DATA")
    path = Path(folder or ".") / f"{name}.hdf5"
    if not folder or not path.is_file():
        pytest.skip("TRAJLM_TEST_DATA names no folder with these files")
    store = load_dataset(path)
    assert (len(store), store.env_id) == (episodes, None)
    assert store.returns.mean() == pytest.approx(return_mean, abs=0.1)
    assert store.rows("observations", 3).shape == (store.lengths[3], dims)
