"""D4RL's HDF5 form: flat arrays of steps with end flags, read without d4rl, gym or mujoco-py.

Known datasets: https://github.com/Farama-Foundation/D4RL (the `gym_mujoco_v2` files and others of
the same form). Kitchen files and version 0 have no `timeouts`: a step limit then cuts episodes.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from trajlm.core.errors import DataError
from trajlm.data.sources.arrays import from_arrays
from trajlm.data.sources.hdf5 import Hdf5, open_hdf5
from trajlm.data.store import TrajectoryStore

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations")

# The files' simulator was MuJoCo 2 through mujoco-py; the -v4 bodies are the nearest that install
# today. Ant is left out: its files have 111 dims, the -v4 environment 27 unless asked otherwise.
_BODIES = {"halfcheetah": "HalfCheetah-v4", "hopper": "Hopper-v4", "walker2d": "Walker2d-v4"}
_TIERS = "random|medium|expert|medium[_-]replay|full[_-]replay|medium[_-]expert"
_KNOWN_FILE = re.compile(rf"({'|'.join(_BODIES)})[_-]({_TIERS})-v[012]\.(hdf5|h5)")
_STEP_LIMITS = {
    "halfcheetah": 1000,
    "hopper": 1000,
    "walker2d": 1000,
    "ant-": 1000,
    "kitchen": 280,
    "pen": 100,
    "hammer": 200,
    "door": 200,
    "relocate": 200,
}


def read(path: Path, *, step_limit: int | None = None, content_hash: str = "") -> TrajectoryStore:
    """The file as a store. `step_limit` cuts episodes where the file has no `timeouts`.

    `env_id` is what the file itself declares, else None. Raises `DataError` naming the file.
    """
    with open_hdf5(path) as file:
        names = file.members(file.root)
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise DataError(
                f"{path}: no {missing[0]!r} in it, so it is no dataset in D4RL's form; it holds "
                f"{', '.join(sorted(names)[:12]) or 'nothing'}"
            )
        columns: dict[str, np.ndarray] = {}
        for name in (*REQUIRED, *OPTIONAL):
            if name in names:
                _read_column(file, file.root, name, columns)
        env_id = _declared_env_id(file, names)
    try:
        return from_arrays(
            columns,
            name=path.stem,
            env_id=env_id,
            step_limit=step_limit,
            content_hash=content_hash,
            metadata={"format": "d4rl"},
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read_column(
    file: Hdf5, parent: object, name: str, columns: dict[str, np.ndarray], *, prefix: str = ""
) -> None:
    """One array, or the leaves of a group (Dict observations) under `/` names."""
    if prefix.count("/") > 4:
        raise DataError(f"{file.path}: {prefix}{name} is nested too deeply")
    if file.is_group(parent, name):
        group = file.group(parent, name, where=prefix)
        for inner in file.members(group, where=f"{prefix}{name}/"):
            _read_column(file, group, inner, columns, prefix=f"{prefix}{name}/")
        return
    dataset = file.dataset(parent, name, where=prefix)
    # float64 (Adroit) would only be narrowed later: HDF5 narrows while it reads.
    wide = dataset.dtype.kind == "f"
    columns[prefix + name] = file.read(dataset, np.float32 if wide else None)


def _declared_env_id(file: Hdf5, names: list[str]) -> str | None:
    for key in ("env_id", "env_name", "env"):
        value = file.root_attribute(key)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str) and value:
            return value
    if "metadata" in names and file.is_group(file.root, "metadata"):
        group = file.group(file.root, "metadata")
        inner = file.members(group, where="metadata/")
        for key in ("env_id", "env_name"):
            if key in inner and (text := file.text(group, key)):
                return text
    return None


def known_env_id(file_name: str) -> str | None:
    """The environment of one of D4RL's published files, by its name; None for any other."""
    match = _KNOWN_FILE.fullmatch(file_name.lower())
    return _BODIES[match[1]] if match else None


def known_step_limit(name: str | None) -> int | None:
    """The step limit of a D4RL environment, by the beginning of its id or file name."""
    lowered = (name or "").lower().replace("_", "-")
    for body, limit in _STEP_LIMITS.items():
        if lowered.startswith(body):
            return limit
    return None
