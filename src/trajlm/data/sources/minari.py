"""Minari's HDF5 form, read directly and as if a stranger had written it.

Minari's own reader trusts the declared totals and follows links out of the file; here totals are
recounted, lengths compared and links refused. Arrow and Parquet sets are refused with the line
that converts them.

Form: https://minari.farama.org (`ID/data/metadata.json`, `ID/data/main_data.hdf5`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space, leaves
from trajlm.data.findings import Finding, as_metadata
from trajlm.data.sources.hdf5 import Hdf5, Source, open_hdf5
from trajlm.data.sources.minari_form import (
    declared_env_id,
    main_file,
    read_metadata,
    space_from_minari,
)
from trajlm.data.sources.minari_writer import write
from trajlm.data.store import Segment, TrajectoryStore, is_observation

__all__ = ["read", "write"]

_Leaf = Box | Discrete | MultiDiscrete
_EPISODE = re.compile(r"episode_(0|[1-9]\d{0,9})", re.ASCII)
_FLAGS = ("terminations", "truncations")
_KEPT = ("dataset_id", "ref_min_score", "ref_max_score", "algorithm_name", "description", "author")


def read(folder: Path, *, name: str = "", content_hash: str = "") -> TrajectoryStore:
    """A dataset folder (`ID`, or its `data` folder) as a store.

    Episodes whose lengths disagree cannot be stored: they are left out and found in
    `metadata["findings"]`, with what else is wrong. `env_id` is the id string of `env_spec` (or
    of `eval_env_spec`), nothing else of it. Raises `DataError` naming file and key.
    """
    path = main_file(folder)
    declared = read_metadata(path.parent)
    with open_hdf5(path) as file:
        if declared is None:
            declared = _metadata_of_old_versions(file)
        spaces = [
            space_from_minari(declared.get(key), where=f"{path.parent.name}: {key}")
            for key in ("observation_space", "action_space")
        ]
        layout = _Layout(file=file, observation_space=spaces[0], action_space=spaces[1])
        segment = layout.read()
        layout.check_totals(declared)
    facts: dict[str, object] = {key: declared[key] for key in _KEPT if key in declared}
    facts["format"] = "minari"
    facts["findings"] = as_metadata(layout.findings())
    if layout.numbers != list(range(len(layout.numbers))):
        facts["file_episodes"] = layout.numbers
    declared_id = declared.get("dataset_id")
    return TrajectoryStore.from_segment(
        segment,
        observation_space=spaces[0],
        action_space=spaces[1],
        env_id=declared_env_id(declared),
        name=name or (declared_id if isinstance(declared_id, str) else path.parent.parent.name),
        content_hash=content_hash,
        metadata=facts,
    )


def _metadata_of_old_versions(file: Hdf5) -> dict[str, Any]:
    keys = (
        *("dataset_id", "total_episodes", "total_steps", "observation_space", "action_space"),
        *("env_spec", "algorithm_name", "ref_min_score", "ref_max_score"),
    )
    found: dict[str, Any] = {}
    for key in keys:
        value = file.root_attribute(key)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, np.generic):
            value = value.item()
        if value is not None:
            found[key] = value
    return found


@dataclass(kw_only=True)
class _Layout:
    """Reads one file, episode by episode: links, storage, sizes and shapes before any byte.

    `numbers`: the episodes kept, by their number in the file.
    """

    file: Hdf5
    observation_space: Space
    action_space: Space
    notices: list[Finding] = field(default_factory=list)
    broken: dict[tuple[str, bool], list[tuple[str, tuple[int, ...]]]] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    steps_seen: int = 0
    episodes_seen: int = 0

    def read(self) -> Segment:
        if isinstance(self.action_space, DictSpace):
            raise DataError(f"{self.file.path}: actions of a Dict space are not supported")
        spaces = leaves(self.observation_space, "observations")
        spaces |= leaves(self.action_space, "actions")
        kept: list[dict[str, np.ndarray]] = []
        seeds: list[int] = []
        for number in self._episode_numbers():
            group = self.file.group(self.file.root, f"episode_{number}")
            sources = self._open_episode(number, group, spaces)
            self.episodes_seen += 1
            self.steps_seen += sources["rewards"].shape[0]
            if self._lengths_agree(number, sources):
                kept.append({n: self._read_column(n, s, spaces) for n, s in sources.items()})
                self.numbers.append(number)
                seeds.append(self._identity(group, number))
        if not kept:
            why = "".join(f" ({finding.message})" for finding in self.findings()[:1])
            raise DataError(f"{self.file.path}: no usable episode in it{why}")
        return self._join(kept, seeds)

    def _episode_numbers(self) -> list[int]:
        """In numeric order: 10 comes after 9."""
        names = self.file.members(self.file.root)
        numbers = sorted(int(m[1]) for n in names if (m := _EPISODE.fullmatch(n)))
        if not numbers:
            raise DataError(f"{self.file.path}: no group episode_0: no Minari dataset")
        if numbers[-1] != len(numbers) - 1:
            missing = next(place for place, number in enumerate(numbers) if place != number)
            message = f"episode_{missing} is missing: {len(numbers)} episodes, the last is "
            self._find("D013", f"{message}episode_{numbers[-1]}")
        return numbers

    def _open_episode(
        self, number: int, group: Any, spaces: Mapping[str, _Leaf]
    ) -> dict[str, Source]:
        where = f"episode_{number}/"
        names = self.file.members(group, where=where)
        for required in ("observations", "actions", "rewards", *_FLAGS):
            if required not in names:
                raise DataError(f"{self.file.path}: {where}{required} is missing")
        found: dict[str, Source] = {}
        inside: dict[str, tuple[Any, list[str]]] = {"": (group, names)}
        for column, space in spaces.items():
            above, _, leaf = column.rpartition("/")
            parent, members = self._enter(above, inside, where=where)
            if leaf not in members:
                raise DataError(f"{self.file.path}: {where}{column} is missing")
            found[column] = self._open_leaf(parent, leaf, space, where=where + column[: -len(leaf)])
        for name in ("rewards", *_FLAGS):
            found[name] = self.file.dataset(group, name, where=where)
            if len(found[name].shape) != 1:
                raise DataError(f"{self.file.path}: {where}{name} has shape {found[name].shape}")
        return found

    def _enter(
        self, path: str, inside: dict[str, tuple[Any, list[str]]], *, where: str
    ) -> tuple[Any, list[str]]:
        """The sub-group at `path` and its members, whose links are checked on the way."""
        if path not in inside:
            above, _, leaf = path.rpartition("/")
            parent, members = self._enter(above, inside, where=where)
            if leaf not in members:
                raise DataError(f"{self.file.path}: {where}{path} is missing")
            group = self.file.group(parent, leaf, where=where)
            inside[path] = group, self.file.members(group, where=f"{where}{path}/")
        return inside[path]

    def _open_leaf(self, parent: Any, name: str, space: _Leaf, *, where: str) -> Source:
        entry = tuple(space.shape)
        if len(entry) >= 2 and space.dtype == "uint8":
            shape = self.file.shape(parent, name)
            if shape is not None and len(shape) <= 2:
                raise DataError(
                    f"{self.file.path}: {where}{name} holds JPEG images, which lose pixels and "
                    f"are not read; collect the dataset again with jpeg_encoding=False"
                )
        source = self.file.dataset(parent, name, where=where)
        if len(source.shape) != 1 + len(entry) or source.shape[1:] != entry:
            raise DataError(
                f"{self.file.path}: {where}{name} has shape {source.shape}, the declared space "
                f"asks for {entry} a row"
            )
        if source.dtype.kind == "f" and np.dtype(space.dtype).kind != "f":
            raise DataError(
                f"{self.file.path}: {where}{name} holds {source.dtype}, the declared space "
                f"{space.dtype}"
            )
        return source

    def _lengths_agree(self, number: int, sources: Mapping[str, Source]) -> bool:
        """False, with a finding, for an episode that no store can hold."""
        rows = {name: int(source.shape[0]) for name, source in sources.items()}
        steps = rows["rewards"]
        observed = {count for name, count in rows.items() if is_observation(name)}
        stepped = {count for name, count in rows.items() if not is_observation(name)}
        if stepped != {steps} or observed not in ({steps}, {steps + 1}):
            listed = ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
            self._find("D002", f"episode {number}: lengths disagree ({listed})", number)
            return False
        if steps == 0:
            self._find("D003", f"episode {number} has no steps", number)
            return False
        return True

    def _read_column(self, name: str, source: Source, spaces: Mapping[str, _Leaf]) -> np.ndarray:
        if name in _FLAGS:
            return self.file.read(source).astype(bool)
        dtype = np.dtype(spaces[name].dtype if name in spaces else np.float32)
        return self.file.read(source, np.float32 if dtype.kind == "f" else dtype)

    def _join(self, kept: list[dict[str, np.ndarray]], seeds: list[int]) -> Segment:
        lengths = np.array([len(columns["rewards"]) for columns in kept], np.int64)
        observed = next(name for name in kept[0] if is_observation(name))
        plus_one = [len(c[observed]) - len(c["rewards"]) for c in kept]
        keeps_last = all(plus_one)
        joined: dict[str, np.ndarray] = {}
        for name in list(kept[0]):
            cut = is_observation(name) and not keeps_last
            parts = [columns.pop(name) for columns in kept]
            joined[name] = np.concatenate(
                [p[:steps] for p, steps in zip(parts, lengths, strict=True)] if cut else parts
            )
        ends = np.cumsum(lengths) - 1
        last = {name: self._last_flags(name, joined.pop(name), ends) for name in _FLAGS}
        terminated, truncated = last["terminations"], last["truncations"]
        both = np.flatnonzero(terminated & truncated)
        if len(both):
            episodes = tuple(self.numbers[e] for e in both.tolist())
            message = (
                f"{len(both)} episodes end terminated and truncated at once (first: episode "
                f"{episodes[0]}); read as terminated"
            )
            self.notices.append(
                Finding(rule="D004", severity="warning", message=message, episodes=episodes)
            )
        return Segment(
            columns=joined,
            lengths=lengths,
            terminated=terminated,
            truncated=truncated & ~terminated,
            unfinished=~(terminated | truncated),
            seeds=np.array(seeds, np.int64),
            has_last_observation=keeps_last,
        )

    def _last_flags(self, name: str, flags: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(M,) -> (E,): each episode's last flag; a flag before it is found as D006."""
        inner = flags.copy()
        inner[ends] = False
        rows = np.flatnonzero(inner)
        episodes = np.searchsorted(ends, rows)
        for episode, first in zip(*np.unique(episodes, return_index=True), strict=True):
            early = int(ends[episode] - rows[first])
            start = int(ends[episode - 1]) + 1 if episode else 0
            message = (
                f"episode {self.numbers[episode]}, step {rows[first] - start}: {name} is set "
                f"{early} steps before the episode's end"
            )
            self._find("D006", message, self.numbers[episode])
        return np.asarray(flags[ends])

    def _identity(self, group: Any, number: int) -> int:
        """The seed, -1 where unknown; an `id` or length that contradicts the data is found."""
        declared = self.file.attribute(group, "id")
        if declared is not None and declared != number:
            self._find("D013", f"episode_{number} declares the id {declared}", number)
        seed = self.file.attribute(group, "seed")
        return int(seed) if seed is not None and 0 <= seed < 2**63 else -1

    def check_totals(self, declared: Mapping[str, Any]) -> None:
        for key, counted in (
            ("total_episodes", self.episodes_seen),
            ("total_steps", self.steps_seen),
        ):
            if key in declared and declared[key] != counted:
                self._find("D013", f"{key} is declared {declared[key]!r}, the file holds {counted}")

    def _find(self, rule: str, message: str, *episodes: int) -> None:
        self.broken.setdefault((rule, bool(episodes)), []).append((message, episodes))

    def findings(self) -> list[Finding]:
        """One finding a rule: the first message, and every episode concerned."""
        found = list(self.notices)
        for (rule, of_episodes), cases in self.broken.items():
            more = f" (and {len(cases) - 1} episodes more)" if len(cases) > 1 else ""
            if of_episodes:
                numbers = tuple(number for _, episodes in cases for number in episodes)
                message = cases[0][0] + more
                found.append(
                    Finding(rule=rule, severity="error", message=message, episodes=numbers)
                )
            else:
                found += [Finding(rule=rule, severity="error", message=m) for m, _ in cases]
        return found
