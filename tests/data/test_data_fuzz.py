"""Damaged files in a process of their own: no hang, no crash, no error but ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trajlm.data.sources.minari import write
from trajlm.data.sources.synthetic import synthetic

pytest.importorskip("h5py")

CASES = 60
SCRIPT = """
import random, shutil, sys
from pathlib import Path
from trajlm.core.errors import DataError
from trajlm.data.load import load_dataset

folder, cases = Path(sys.argv[1]), int(sys.argv[2])
files = [folder / "flat.hdf5", folder / "flat.npz", folder / "set" / "data" / "main_data.hdf5"]
whole = {path: path.read_bytes() for path in files}
random.seed(0)
for case in range(cases):
    path = files[case % len(files)]
    content = bytearray(whole[path])
    if case % 5 == 0:
        del content[random.randrange(len(content)):]
    else:
        # Structure sits at the ends: half of the flips go there.
        at = random.randrange(len(content))
        content[at % 2048 if case % 2 else at] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    print("case", case, path.name, flush=True)
    try:
        store = load_dataset(path, cache=False)
        print("loaded", len(store), float(store.num_steps), flush=True)
    except DataError as error:
        assert len(str(error).splitlines()) == 1, error
        print("refused", error, flush=True)
    path.write_bytes(whole[path])
print("done")
"""


def test_bit_flips_and_cuts_are_refused_or_loaded(tmp_path: Path) -> None:
    import h5py
    import numpy as np

    rows = 200
    arrays = {
        "observations": np.random.default_rng(0).standard_normal((rows, 3)).astype("f4"),
        "actions": np.zeros((rows, 2), "f4"),
        "rewards": np.ones(rows, "f4"),
        "terminals": np.arange(rows) % 50 == 49,
    }
    np.savez_compressed(tmp_path / "flat.npz", **arrays)
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip")
    written = write(synthetic("short", episodes=4), dataset_id="a/b-v0", root=tmp_path / "root")
    written.rename(tmp_path / "set")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(CASES)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    lines = done.stdout.splitlines()
    if done.returncode < 0:
        # HDF5 itself crashed on a damaged file: the reason why files are hashed where they can be.
        pytest.fail(f"signal {-done.returncode} at {lines[-1]}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert lines[-1] == "done"
    refused = sum(line.startswith("refused") for line in lines)
    assert refused >= CASES // 5
