"""Writes a dataset in Minari's HDF5 form, which `minari.load_dataset` reads back.

Written beside its final place and renamed when whole: a dataset is there or it is not. Arrays are
contiguous and keep their dtype; nothing is compressed, so writing costs what the disk costs.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import DataError, StorageError
from trajlm.core.spec import Space
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.hdf5 import Writer
from trajlm.data.sources.minari_form import (
    MAIN_FILE,
    METADATA_FILE,
    env_spec_json,
    folder_of,
    space_to_minari,
)
from trajlm.data.store import TrajectoryStore, is_observation

MINARI_VERSION = "0.5.3"
_OUR_KEYS = {
    *("total_episodes", "total_steps", "data_format", "jpeg_encoding", "observation_space"),
    *("action_space", "dataset_id", "minari_version", "dataset_size", "env_spec"),
}


def write(
    episodes: TrajectoryStore | Iterable[Trajectory],
    *,
    dataset_id: str,
    observation_space: Space | None = None,
    action_space: Space | None = None,
    env_id: str | None = None,
    env_spec: str | None = None,
    root: Path | None = None,
    reference_scores: tuple[float, float] | None = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the dataset and returns its folder, `ROOT/dataset_id`.

    `episodes` may be a generator: episodes are written as they come. Each must have T+1
    observations, which Minari asks for; columns other than observations, actions and rewards are
    not part of the form and stay out. Spaces and `env_id` default to the store's.
    `env_spec`: Gymnasium's JSON of the environment, by default one that holds the id alone.
    `reference_scores`: (`ref_min_score`, `ref_max_score`). `metadata`: further keys, such as
    `author` (a list), `algorithm_name`, `description`, `code_permalink`.

    Raises `StorageError` where the dataset exists (unless `overwrite`) or the disk refuses,
    `DataError` for an id or episodes that do not fit.
    """
    folder = folder_of(dataset_id, root=root)
    if isinstance(episodes, TrajectoryStore):
        store = episodes
        observation_space = observation_space or store.observation_space
        action_space = action_space or store.action_space
        env_id = env_id or store.env_id
        episodes = (store.episode(number) for number in range(len(store)))
    if observation_space is None or action_space is None:
        raise DataError("write: trajectories need observation_space= and action_space=")
    if taken := _OUR_KEYS & set(metadata or {}):
        raise DataError(f"write: metadata key {sorted(taken)[0]!r} is written by trajlm itself")
    if folder.exists() and not overwrite:
        raise StorageError(f"{folder} exists already; pass overwrite=True or use another id")
    facts: dict[str, Any] = {
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(space_to_minari(observation_space)),
        "action_space": json.dumps(space_to_minari(action_space)),
        "dataset_id": dataset_id,
        "minari_version": MINARI_VERSION,
        "author": ["trajlm"],
        "author_email": [],
        "algorithm_name": "",
        "code_permalink": "",
        **(metadata or {}),
    }
    if env_spec or env_id:
        facts["env_spec"] = env_spec or env_spec_json(str(env_id))
    if reference_scores is not None:
        facts["ref_min_score"], facts["ref_max_score"] = map(float, reference_scores)
    return _write_folder(folder, episodes, facts, overwrite=overwrite)


def _write_folder(
    folder: Path, episodes: Iterable[Trajectory], facts: dict[str, Any], *, overwrite: bool
) -> Path:
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        data = temporary / "data"
        data.mkdir()
        facts["total_episodes"], facts["total_steps"] = _write_episodes(data / MAIN_FILE, episodes)
        facts["dataset_size"] = round((data / MAIN_FILE).stat().st_size / 1e6, 1)
        (data / METADATA_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        _move_into_place(temporary, folder, overwrite=overwrite)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{folder}: cannot be written ({error.strerror or error})") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _move_into_place(temporary: Path, folder: Path, *, overwrite: bool) -> None:
    with (temporary / "data" / MAIN_FILE).open("rb") as file:
        os.fsync(file.fileno())
    if folder.exists():
        if not overwrite:
            raise StorageError(f"{folder} exists already; pass overwrite=True or use another id")
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.rename(old / folder.name)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(folder)


def _write_episodes(path: Path, episodes: Iterable[Trajectory]) -> tuple[int, int]:
    """The main file; returns the numbers of episodes and steps."""
    number = steps = 0
    with Writer(path) as file:
        for episode in episodes:
            _write_episode(file, episode, number=number)
            steps += len(episode)
            number += 1
    if number == 0:
        raise DataError("write: no episodes")
    return number, steps


def _write_episode(file: Writer, episode: Trajectory, *, number: int) -> None:
    if not episode.has_last_observation:
        raise DataError(
            f"write: episode {number} has no last observation; Minari keeps T+1 of them"
        )
    group = file.group(file.root, f"episode_{number}")
    parents = {"": group}
    for name, column in sorted(episode.columns.items()):
        if is_observation(name) or name in ("actions", "rewards"):
            *path, leaf = name.split("/")
            above = ""
            for part in path:
                inside = f"{above}/{part}"
                if inside not in parents:
                    parents[inside] = file.group(parents[above], part)
                above = inside
            file.dataset(parents[above], leaf, column)
    for name, ends in (("terminations", episode.terminated), ("truncations", episode.truncated)):
        flags = np.zeros(len(episode), bool)
        flags[-1:] = ends
        file.dataset(group, name, flags)
    file.integer(group, "id", number)
    file.integer(group, "total_steps", len(episode))
    if episode.seed is not None:
        file.integer(group, "seed", episode.seed)
