"""Minari's form on disk: ids and folders, `metadata.json`, spaces as JSON, and the download.

The `minari` package is used for one thing: to download. Its reader follows `..` in ids and runs
what `env_spec.entry_point` names; here an id stays under the root and only the id string of
`env_spec` is taken.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space

ROOT_VARIABLE = "MINARI_DATASETS_PATH"
MAIN_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"
MAX_METADATA_BYTES = 16 * 2**20
MAX_SPACE_DEPTH, MAX_SPACE_ENTRIES = 8, 10_000_000
DOWNLOAD_TIMEOUT_S = 3600
_ID = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+-v\d+", re.ASCII)


def root_folder(root: Path | None = None) -> Path:
    """Where Minari keeps datasets: `root`, else $MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    if root is not None:
        return root
    return Path(os.environ.get(ROOT_VARIABLE) or Path.home() / ".minari" / "datasets")


def is_id(text: str) -> bool:
    """True for the form (namespace/)name-vN."""
    return _ID.fullmatch(text) is not None


def folder_of(dataset_id: str, *, root: Path | None = None) -> Path:
    """The dataset's folder, which may not exist. Raises `DataError` for an id that leaves the root."""
    if not is_id(dataset_id):
        raise DataError(
            f"{dataset_id!r} is no Minari dataset id; ids look like mujoco/hopper/medium-v0"
        )
    base = root_folder(root).resolve()
    folder = base.joinpath(*dataset_id.split("/"))
    for part in (
        folder,
        folder / "data",
        folder / "data" / MAIN_FILE,
        folder / "data" / METADATA_FILE,
    ):
        if not part.resolve().is_relative_to(base):
            raise DataError(f"{dataset_id}: {part} is a link that leaves {base}; refused")
    return folder


def find(dataset_id: str, *, root: Path | None = None, download: bool = True) -> Path:
    """The dataset's folder on disk, fetched where it is missing. Raises `DataError`."""
    folder = folder_of(dataset_id, root=root)
    if (folder / "data").is_dir():
        return folder
    if dataset_id.startswith("trajlm/"):
        body_tier = re.sub(r"-v\d+$", "", dataset_id.removeprefix("trajlm/"))
        raise DataError(f"{dataset_id} is not on disk ({folder}); run: trajlm collect {body_tier}")
    if not download:
        raise DataError(
            f"{dataset_id} is not on disk ({folder}); run: minari download {dataset_id}"
        )
    _download(dataset_id, root=root)
    folder = folder_of(dataset_id, root=root)
    if not (folder / "data").is_dir():
        raise DataError(f"{dataset_id}: the download left no data in {folder}")
    return folder


def _download(dataset_id: str, *, root: Path | None) -> None:
    """Runs Minari's downloader in a process of its own: it only moves files."""
    code = "import sys, minari; minari.download_dataset(sys.argv[1])"
    environment = {**os.environ, ROOT_VARIABLE: str(root_folder(root))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, dataset_id],
            env=environment,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
        cause = (done.stderr.strip().splitlines() or [""])[-1][:200]
        if done.returncode == 0:
            return
    except subprocess.TimeoutExpired:
        cause = f"no end after {DOWNLOAD_TIMEOUT_S} s"
    if "No module named" in cause:
        cause = 'the package is missing: pip install "minari[hdf5,hf]"'
    raise DataError(
        f"{dataset_id} is not on disk and could not be downloaded; where there is a network run: "
        f"minari download {dataset_id} ({cause})"
    )


# ---- metadata.json ----------------------------------------------------------------------------


def main_file(folder: Path) -> Path:
    """`main_data.hdf5` of a dataset folder. Raises `DataError` for other forms of data."""
    for data in (folder / "data", folder):
        if (data / MAIN_FILE).is_file():
            return data / MAIN_FILE
    for data in (folder / "data", folder):
        if any(data.glob("*/*.arrow")) or any(data.glob("*/*.parquet")):
            raise DataError(
                f"{folder}: Arrow and Parquet are not read yet; write it again with "
                f"minari.create_dataset_from_buffers(..., data_format='hdf5')"
            )
    raise DataError(f"{folder}: no {MAIN_FILE} in it")


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """`metadata.json` of a data folder, None where there is none (before version 0.5)."""
    path = folder / METADATA_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise DataError(f"{path}: larger than {MAX_METADATA_BYTES >> 20} MiB, no metadata")
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path}: not JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path}: expected an object, found {type(loaded).__name__}")
    if loaded.get("data_format", "hdf5") != "hdf5":
        raise DataError(f"{path}: data_format {loaded['data_format']!r}; only hdf5 is read yet")
    return loaded


def declared_env_id(metadata: Mapping[str, Any]) -> str | None:
    """The id string of `env_spec`; its entry point, wrappers and arguments are never used."""
    for key in ("env_spec", "eval_env_spec"):
        text = metadata.get(key)
        if isinstance(text, str) and len(text) < 1_000_000:
            try:
                spec = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(spec, dict) and isinstance(spec.get("id"), str):
                return str(spec["id"])
    return None


# ---- spaces -----------------------------------------------------------------------------------


def space_from_minari(declared: Any, *, where: str) -> Space:
    """A space from Minari's JSON string. Raises `DataError` for kinds that have no column form."""
    if not isinstance(declared, str):
        raise DataError(f"{where} is not declared; Minari's own reader would run env_spec instead")
    try:
        return _space(json.loads(declared), where=where, depth=0)
    except DataError:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DataError(f"{where} is damaged ({cause})") from None


def _space(value: Mapping[str, Any], *, where: str, depth: int) -> Space:
    kind = value["type"]
    if depth > MAX_SPACE_DEPTH:
        raise DataError(f"{where}: nested deeper than {MAX_SPACE_DEPTH}")
    if kind == "Dict":
        inner: dict[str, Space] = {}
        for name, subspace in value["subspaces"].items():
            if "/" in name or name in ("", ".", ".."):
                raise DataError(f"{where}: {name!r} cannot be the name of a column")
            inner[name] = _space(subspace, where=f"{where}/{name}", depth=depth + 1)
        return DictSpace(subspaces=inner)
    if kind == "Discrete":
        return Discrete(n=_count(value["n"]), start=int(value.get("start", 0)))
    if kind == "MultiBinary":
        return MultiDiscrete(nvec=(2,) * _count(value["n"]), dtype="int8")
    if kind == "MultiDiscrete":
        if np.any(np.asarray(value.get("start", 0))):
            raise DataError(f"{where}: a MultiDiscrete space that does not start at 0 is not read")
        nvec = tuple(_count(n) for n in value["nvec"])
        return MultiDiscrete(nvec=nvec, dtype=_number_dtype(value.get("dtype", "int64"), where))
    if kind == "Box":
        return _box(value, where=where)
    raise DataError(f"{where}: spaces of the type {kind!r} are not supported")


def _box(value: Mapping[str, Any], *, where: str) -> Box:
    shape = tuple(_count(n, least=0) for n in value["shape"])
    size = math.prod(shape)
    if len(shape) > 8 or size > MAX_SPACE_ENTRIES:
        raise DataError(f"{where}: a Box of shape {shape} is too large")
    bounds = []
    for key in ("low", "high"):
        flat = np.asarray(value[key], np.float64).reshape(-1)
        if flat.size not in (1, size) or np.isnan(flat).any():
            raise DataError(
                f"{where}: {key} has {flat.size} numbers, the shape {shape} needs {size}"
            )
        bounds.append(tuple(np.broadcast_to(flat, (size,)).tolist()))
    dtype = _number_dtype(value["dtype"], where)
    return Box(shape=shape, dtype=dtype, low=bounds[0], high=bounds[1])


def _count(value: Any, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise ValueError(f"{value!r} is no count")
    return value


def _number_dtype(name: Any, where: str) -> str:
    dtype = np.dtype(str(name))
    if dtype.kind not in "fiub":
        raise DataError(f"{where}: dtype {name!r} is no number")
    return str(dtype)


def env_spec_json(env_id: str) -> str:
    """Gymnasium's EnvSpec JSON with nothing but the id: no entry point, no wrappers."""
    return json.dumps({"id": env_id, "entry_point": None, "additional_wrappers": []})


def space_to_minari(space: Space) -> dict[str, Any]:
    """The space in Minari's JSON; absent bounds become -inf and inf, as Minari writes them."""
    if isinstance(space, DictSpace):
        inner = {name: space_to_minari(subspace) for name, subspace in space.subspaces.items()}
        return {"type": "Dict", "subspaces": inner}
    if isinstance(space, Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": space.start, "n": space.n}
    if isinstance(space, MultiDiscrete):
        nvec = list(space.nvec)
        return {
            "type": "MultiDiscrete",
            "dtype": space.dtype,
            "nvec": nvec,
            "start": [0] * len(nvec),
        }
    assert isinstance(space, Box)
    low = (-math.inf,) * space.size if space.low is None else space.low
    high = (math.inf,) * space.size if space.high is None else space.high
    if np.dtype(space.dtype).kind != "f":
        low, high = tuple(map(int, low)), tuple(map(int, high))
    return {
        "type": "Box",
        "dtype": space.dtype,
        "shape": list(space.shape),
        "low": np.reshape(low, space.shape).tolist(),
        "high": np.reshape(high, space.shape).tolist(),
    }
