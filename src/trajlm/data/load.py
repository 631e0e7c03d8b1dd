"""One door to every dataset: a reference is a file, a folder, an id or a synthetic name."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trajlm.core.errors import DataError
from trajlm.data.cache import file_hash, through_cache
from trajlm.data.guard import OnBad, enforce, with_verdict
from trajlm.data.sources import arrays, d4rl, minari
from trajlm.data.sources.hdf5 import open_hdf5
from trajlm.data.sources.minari_form import (
    MAIN_FILE,
    METADATA_FILE,
    find,
    is_id,
    main_file,
)
from trajlm.data.sources.synthetic import synthetic
from trajlm.data.store import TrajectoryStore

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".zip", ".joblib")
# gymnasium imports the module of an id "module:Name": such ids are not taken from a file.
_ENV_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)

logger = logging.getLogger(__name__)


def load_dataset(
    reference: str | Path,
    *,
    env_id: str | None = None,
    cache: bool = True,
    on_bad: OnBad = "refuse",
    name: str | None = None,
    step_limit: int | None = None,
    root: Path | None = None,
    download: bool = True,
) -> TrajectoryStore:
    """A dataset as a store.

    `reference`: a path (D4RL or Minari HDF5, a Minari folder, `.npz`), `minari:ID` or the bare id
    (under `root`, else $MINARI_DATASETS_PATH, else ~/.minari/datasets; fetched where it is missing
    and there is a network), or `synthetic:NAME`.
    `env_id`: for data that declare none; what the data declare has priority. D4RL's published
    files are known by their names.
    `on_bad`: `refuse` raises `DataError` at NaN, lengths that disagree, empty episodes and wrong
    totals; `drop-episode` leaves such episodes out; `keep` keeps them, for `doctor.check`.
    `step_limit`: cuts episodes of flat files without `timeouts`; by default the environment's.

    Raises `DataError` in one line that names the file and the way out.
    """
    text = str(reference)
    kind, _, rest = text.partition(":")
    if kind == "synthetic":
        store = with_verdict(synthetic(rest))
    elif kind == "minari":
        store = _load_minari(find(rest, root=root, download=download), cache=cache)
    else:
        store = _load_path_or_id(
            text, env_id=env_id, cache=cache, step_limit=step_limit, root=root, download=download
        )
    store = replace(store, env_id=_env_id(store, env_id, reference=text), name=name or store.name)
    return enforce(store, on_bad)


def _load_path_or_id(
    text: str,
    *,
    env_id: str | None,
    cache: bool,
    step_limit: int | None,
    root: Path | None,
    download: bool,
) -> TrajectoryStore:
    if "\0" in text:
        raise DataError("a dataset reference with a NUL character")
    path = Path(os.path.expanduser(text))  # noqa: PTH111 (pathlib raises for an unknown user)
    if path.is_dir():
        return _load_minari(path, cache=cache)
    if path.is_file():
        return _load_file(path, env_id=env_id, cache=cache, step_limit=step_limit)
    if is_id(text):
        return _load_minari(find(text, root=root, download=download), cache=cache)
    raise DataError(
        f"{text}: no such file; a dataset is a path, minari:ID (such as "
        f"minari:mujoco/hopper/medium-v0) or synthetic:NAME"
    )


def _load_file(
    path: Path, *, env_id: str | None, cache: bool, step_limit: int | None
) -> TrajectoryStore:
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise DataError(
            f"{path}: pickles and archives can run code and are not read; save the arrays with "
            f"numpy.savez(observations=, actions=, rewards=, terminals=) and load the .npz"
        )
    if suffix == ".npz":
        limit = step_limit or d4rl.known_step_limit(env_id)
        return _cached(
            [path],
            read=lambda content: arrays.read(path, step_limit=limit, content_hash=content),
            cache=cache,
            step_limit=limit,
        )
    if path.name == MAIN_FILE or _holds_episode_groups(path):
        return _load_minari(path.parent, cache=cache, main=path)
    limit = step_limit or d4rl.known_step_limit(env_id) or d4rl.known_step_limit(path.name)
    return _cached(
        [path],
        read=lambda content: d4rl.read(path, step_limit=limit, content_hash=content),
        cache=cache,
        step_limit=limit,
    )


def _holds_episode_groups(path: Path) -> bool:
    with open_hdf5(path) as file:
        return "episode_0" in file.members(file.root)


def _load_minari(folder: Path, *, cache: bool, main: Path | None = None) -> TrajectoryStore:
    if main is not None and main.name != MAIN_FILE:
        raise DataError(f"{main}: a Minari file must be called {MAIN_FILE}")
    path = main_file(folder)
    metadata = path.parent / METADATA_FILE
    files = [path, metadata] if metadata.is_file() else [path]
    return _cached(
        files,
        read=lambda content: minari.read(folder, content_hash=content),
        cache=cache,
        step_limit=None,
    )


def _cached(
    files: Sequence[Path],
    *,
    read: Callable[[str], TrajectoryStore],
    cache: bool,
    step_limit: int | None,
) -> TrajectoryStore:
    def build() -> TrajectoryStore:
        return with_verdict(read(file_hash(files)))

    if not cache:
        return build()
    return through_cache(files, options={"step_limit": step_limit}, build=build)


def _env_id(store: TrajectoryStore, given: str | None, *, reference: str) -> str | None:
    """The data's own id, else the one given, else that of a known file name."""
    declared = store.env_id
    if declared is not None and not _ENV_ID.fullmatch(declared):
        logger.warning("%s: its environment id %r is not taken", store.name, declared[:80])
        declared = None
    if declared and given and declared != given:
        logger.warning("%s: recorded in %s; env_id=%s is not used", store.name, declared, given)
    return declared or given or d4rl.known_env_id(Path(reference).name)
