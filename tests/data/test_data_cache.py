"""The cache: same data the second time, rebuilt when damaged or stale, safe among processes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trajlm.core.errors import DataError
from trajlm.data import cache
from trajlm.data.cache import CheckedColumn
from trajlm.data.load import load_dataset
from trajlm.data.sources import d4rl
from trajlm.data.statistics import column_statistics
from trajlm.data.store import TrajectoryStore

h5py = pytest.importorskip("h5py")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAJLM_CACHE", str(tmp_path / "cache"))
    return write(tmp_path / "mine.hdf5")


def write(path: Path, *, rows: int = 40, scale: float = 1.0) -> Path:
    with h5py.File(path, "w") as file:
        file["observations"] = scale * np.arange(3.0 * rows, dtype=np.float32).reshape(rows, 3)
        file["actions"] = np.zeros((rows, 2), np.float32)
        file["rewards"] = np.ones(rows, np.float32)
        file["terminals"] = np.arange(rows) % 10 == 9
    return path


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "datasets").iterdir())


def same(one: TrajectoryStore, two: TrajectoryStore) -> bool:
    return one.content_hash == two.content_hash and all(
        np.array_equal(one.segments[0].columns[n], two.segments[0].columns[n])
        for n in one.column_names
    )


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("the source was read again")

    monkeypatch.setattr(d4rl, "read", read)


def test_the_second_load_reads_the_cache(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = load_dataset(source, cache=False)
    assert not (tmp_path / "cache").exists()
    first = load_dataset(source)
    forbid_reading(monkeypatch)
    second = load_dataset(source)
    assert same(fresh, first)
    assert same(first, second)
    assert second.metadata == fresh.metadata
    assert (second.observation_space, second.action_space) == (
        fresh.observation_space,
        fresh.action_space,
    )
    assert isinstance(second.segments[0].columns["actions"].base, np.memmap)
    assert len(entries(tmp_path)) == 1


def test_a_changed_source_is_read_again(source: Path, tmp_path: Path) -> None:
    old = load_dataset(source)
    write(source, scale=2.0)
    os.utime(source, ns=(1, 1))
    new = load_dataset(source)
    assert not same(old, new)
    assert new.segments[0].columns["observations"][1, 0] == 6.0
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("victim", ["column-01.npy", "lengths.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_entry_is_rebuilt_with_a_warning(
    source: Path,
    tmp_path: Path,
    victim: str,
    damage: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = load_dataset(source, cache=False)
    load_dataset(source)
    path = entries(tmp_path)[0] / victim
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-20] ^= 4
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-9])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        again = load_dataset(source)
    assert "damaged" in caplog.text
    assert same(first, again)
    forbid_reading(monkeypatch)
    assert same(first, load_dataset(source))


def test_a_manifest_cannot_name_files_elsewhere(source: Path, tmp_path: Path) -> None:
    load_dataset(source)
    path = entries(tmp_path)[0] / "manifest.json"
    body = json.loads(path.read_text())["body"]
    body["columns"]["actions"]["file"] = "../../../mine.hdf5"
    with pytest.raises(DataError, match="outside of its entry"):
        cache.open_entry(path.parent, body)


def test_bad_data_are_refused_from_the_cache_too(source: Path) -> None:
    with h5py.File(source, "a") as file:
        file["rewards"][13] = np.nan
    for _ in range(2):
        with pytest.raises(DataError, match="episode 1, step 3"):
            load_dataset(source)
    assert load_dataset(source, on_bad="drop-episode").index[:, 1].tolist() == [0, 2, 3]


def test_a_cache_that_cannot_be_written_is_done_without(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAJLM_CACHE", str(tmp_path / "file"))
    assert len(load_dataset(source)) == 4
    assert "cannot be written" in caplog.text


def test_processes_that_load_at_once_agree(source: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from trajlm.data.load import load_dataset; "
        "s = load_dataset(sys.argv[1]); print(s.content_hash, s.returns.sum())"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(4)
    ]
    results = [process.communicate(timeout=180) for process in running]
    assert {out for out, _ in results} == {results[0][0]}
    assert results[0][0].endswith("40.0\n")
    assert not any("damaged" in error or "Traceback" in error for _, error in results)
    assert len(entries(tmp_path)) == 1


def test_the_loser_of_a_race_leaves_the_winners_entry(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = load_dataset(source)
    entry = entries(tmp_path)[0]
    before = (entry / "manifest.json").stat().st_ino
    original = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: self != entry and original(self))
    cache.write_entry(entry, store, source=[])
    assert (entry / "manifest.json").stat().st_ino == before
    assert entries(tmp_path) == [entry]


def test_what_a_killed_process_left_is_swept(source: Path, tmp_path: Path) -> None:
    load_dataset(source)
    entry = entries(tmp_path)[0]
    old, young = (entry.parent / f".{entry.name}.{name}" for name in ("old", "young"))
    old.mkdir()
    young.mkdir()
    os.utime(old, (1, 1))
    os.utime(source, ns=(2, 2))
    load_dataset(source)
    assert entries(tmp_path) == [young, entry]


# ---- large columns ----------------------------------------------------------------------------


@pytest.fixture
def large(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TrajectoryStore, Path]:
    """A store whose observations are above the (lowered) bound: 40 rows in chunks of 8."""
    monkeypatch.setattr(cache, "WHOLE_FILE_BYTES", 400)
    monkeypatch.setattr(cache, "CHUNK_BYTES", 8 * 12)
    store = load_dataset(source)
    assert isinstance(store.segments[0].columns["observations"], CheckedColumn)
    return store, entries(tmp_path)[0] / "column-01.npy"


def test_a_large_column_reads_like_an_array(
    large: tuple[TrajectoryStore, Path], source: Path
) -> None:
    store, _ = large
    column, whole = store.segments[0].columns["observations"], load_dataset(source, cache=False)
    expected = whole.segments[0].columns["observations"]
    assert (len(column), column.shape, column.dtype) == (40, (40, 3), np.float32)
    keys = [
        3,
        -1,
        slice(5, 25),
        slice(None, None, -1),
        slice(30, 10, -3),
        slice(9, 9),
        np.array([[0, 39], [8, 7]]),
        np.array([-1, -40]),
        np.arange(40) % 7 == 0,
        (slice(2, 4), 1),
        Ellipsis,
    ]
    for key in keys:
        np.testing.assert_array_equal(column[key], expected[key])
    np.testing.assert_array_equal(np.asarray(column), expected)
    np.testing.assert_array_equal(store.rows("observations", 2), whole.rows("observations", 2))
    found = column_statistics(store, "observations")
    np.testing.assert_array_equal(found.mean, column_statistics(whole, "observations").mean)
    rows = np.array([[0, 1], [38, 39]])
    np.testing.assert_array_equal(store.gather("observations", rows), expected[rows])


def test_an_altered_chunk_is_refused_when_it_is_read(
    large: tuple[TrajectoryStore, Path], source: Path
) -> None:
    _, path = large
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = load_dataset(source)
    assert store.rows("observations", 0).shape == (10, 3)
    with pytest.raises(DataError, match=r"was altered \(chunk 4\); delete .* and load"):
        store.rows("observations", 3)
    for key in (-1, slice(None, None, -5), np.array([0, 39]), np.arange(40) == 35):
        with pytest.raises(DataError, match="was altered"):
            load_dataset(source).segments[0].columns["observations"][key]
