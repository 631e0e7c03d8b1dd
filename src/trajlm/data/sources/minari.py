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
from trajlm.data.sources.hdf5 import Hdf5, open_hdf5
from trajlm.data.sources.minari_form import (
    declared_env_id,
    main_file,
    read_metadata,
    space_from_minari,
)
from trajlm.data.sources.minari_writer import write
from trajlm.data.store import Segment, TrajectoryStore, is_observation

__all__ = ["read", "write"]

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
    """Reads one file in two passes: check and measure every episode, then fill flat columns.

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
        leaf_spaces = leaves(self.observation_space, "observations")
        leaf_spaces |= leaves(self.action_space, "actions")
        if isinstance(self.action_space, DictSpace):
            raise DataError(f"{self.file.path}: actions of a Dict space are not supported")
        groups = self._episode_groups()
        kept: list[tuple[Any, dict[str, Any]]] = []
        lengths: list[int] = []
        plus_one: list[bool] = []
        for number, group in groups:
            datasets = self._episode_datasets(number, group, leaf_spaces)
            measured = self._lengths(number, datasets)
            self.episodes_seen += 1
            self.steps_seen += datasets["rewards"].shape[0]
            if measured is None:
                continue
            kept.append((group, datasets))
            lengths.append(measured[0])
            plus_one.append(measured[1])
            self.numbers.append(number)
        if not kept:
            why = "".join(f" ({finding.message})" for finding in self.findings()[:1])
            raise DataError(f"{self.file.path}: no usable episode in it{why}")
        return self._fill(kept, np.array(lengths, np.int64), all(plus_one), leaf_spaces)

    def _episode_groups(self) -> list[tuple[int, Any]]:
        """(number, group) in the order of numbers: 10 comes after 9."""
        names = self.file.members(self.file.root)
        numbers = sorted(int(m[1]) for n in names if (m := _EPISODE.fullmatch(n)))
        if not numbers:
            raise DataError(f"{self.file.path}: no group episode_0: no Minari dataset")
        missing = sorted(set(range(numbers[-1] + 1 if numbers[-1] < 10**6 else 0)) - set(numbers))
        if missing or numbers[-1] != len(numbers) - 1:
            self._find("D013", f"episode_{missing[0] if missing else '?'} is missing: "
                       f"{len(numbers)} episodes, the last is episode_{numbers[-1]}")  # fmt: skip
        return [(n, self.file.group(self.file.root, f"episode_{n}")) for n in numbers]

    def _episode_datasets(
        self, number: int, group: Any, leaf_spaces: Mapping[str, Any]
    ) -> dict[str, Any]:
        where = f"episode_{number}/"
        names = self.file.members(group, where=where)
        for required in ("observations", "actions", "rewards", *_FLAGS):
            if required not in names:
                raise DataError(f"{self.file.path}: {where}{required} is missing")
        found = {name: self.file.dataset(group, name, where=where) for name in ("rewards", *_FLAGS)}
        for column, space in leaf_spaces.items():
            parent, inside = group, where
            *path, leaf = column.split("/")
            for step in path:
                parent = self.file.group(parent, step, where=inside)
                inside += f"{step}/"
                if leaf not in self.file.members(parent, where=inside) and step == path[-1]:
                    raise DataError(f"{self.file.path}: {inside}{leaf} is missing")
            found[column] = self.file.dataset(parent, leaf, where=inside)
            self._check_shape(found[column], column, space, inside=inside)
        return found

    def _check_shape(self, dataset: Any, column: str, space: Any, *, inside: str) -> None:
        shape, kind = tuple(dataset.shape), dataset.dtype.kind
        image = isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) >= 2
        if image and len(shape) <= 2:
            raise DataError(
                f"{self.file.path}: {inside}{column} holds JPEG images, which lose pixels and are "
                f"not read; collect the dataset again with jpeg_encoding=False"
            )
        if len(shape) != 1 + len(space.shape) or shape[1:] != tuple(space.shape):
            raise DataError(
                f"{self.file.path}: {inside}{column} has shape {shape}, the declared space is "
                f"{tuple(space.shape)} a row"
            )
        if kind == "f" and np.dtype(space.dtype).kind != "f":
            raise DataError(
                f"{self.file.path}: {inside}{column} holds {dataset.dtype}, the declared space "
                f"{space.dtype}"
            )

    def _lengths(self, number: int, datasets: Mapping[str, Any]) -> tuple[int, bool] | None:
        """Steps, and whether the last observation is there; None where lengths disagree."""
        rows = {name: int(dataset.shape[0]) for name, dataset in datasets.items()}
        for name in ("rewards", *_FLAGS):
            if len(datasets[name].shape) != 1:
                raise DataError(
                    f"{self.file.path}: episode_{number}/{name} has shape {datasets[name].shape}"
                )
        steps = rows["rewards"]
        observed = {count for name, count in rows.items() if is_observation(name)}
        stepped = {count for name, count in rows.items() if not is_observation(name)}
        if stepped == {steps} and observed in ({steps}, {steps + 1}):
            return steps, observed == {steps + 1}
        listed = ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
        self._find("D002", f"episode {number}: lengths disagree ({listed})", number)
        return None

    def _fill(
        self,
        kept: list[tuple[Any, dict[str, Any]]],
        lengths: np.ndarray,
        keeps_last: bool,
        leaf_spaces: Mapping[str, Any],
    ) -> Segment:
        columns: dict[str, np.ndarray] = {}
        observation_rows = lengths + 1 if keeps_last else lengths
        for column, space in {**leaf_spaces, "rewards": Box(shape=())}.items():
            rows = observation_rows if is_observation(column) else lengths
            flat = np.empty((int(rows.sum()), *space.shape), _column_dtype(space))
            start = 0
            for (_, datasets), count in zip(kept, rows.tolist(), strict=True):
                dataset = datasets[column]
                if count and dataset.shape[0] == count and dataset.dtype.kind != "b":
                    self.file.read_into(dataset, flat[start : start + count])
                elif count:
                    flat[start : start + count] = self.file.read(dataset)[:count]
                start += count
            columns[column] = flat
        terminated, truncated = self._end_flags(kept, lengths)
        seeds = [
            self._identity(group, number)
            for number, (group, _) in zip(self.numbers, kept, strict=True)
        ]
        return Segment(
            columns=columns,
            lengths=lengths,
            terminated=terminated,
            truncated=truncated & ~terminated,
            unfinished=~(terminated | truncated),
            seeds=np.array(seeds, np.int64),
            has_last_observation=keeps_last,
        )

    def _end_flags(
        self, kept: list[tuple[Any, dict[str, Any]]], lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Flags (E,) at each episode's last step; flags before it are found as D006."""
        last = {name: np.zeros(len(kept), bool) for name in _FLAGS}
        for position, (_, datasets) in enumerate(kept):
            for name in _FLAGS:
                flags = self.file.read(datasets[name]).astype(bool)
                last[name][position] = bool(len(flags) and flags[-1])
                if flags[:-1].any():
                    number, step = self.numbers[position], int(np.argmax(flags))
                    self._find(
                        "D006",
                        f"episode {number}, step {step}: {name} is set {lengths[position] - 1 - step} "
                        f"steps before the episode's end",
                        number,
                    )
        both = np.flatnonzero(last["terminations"] & last["truncations"])
        if len(both):
            self.notices.append(
                Finding(
                    rule="D004",
                    severity="warning",
                    message=f"{len(both)} episodes end terminated and truncated at once (first: "
                    f"episode {self.numbers[both[0]]}); read as terminated",
                    episodes=tuple(self.numbers[e] for e in both[:20]),
                )
            )
        return last["terminations"], last["truncations"]

    def _identity(self, group: Any, number: int) -> int:
        """The seed, -1 where unknown; an `id` attribute that contradicts the name is found."""
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


def _column_dtype(space: Box | Discrete | MultiDiscrete) -> np.dtype[Any]:
    dtype = np.dtype(space.dtype)
    return np.dtype(np.float32) if dtype.kind == "f" else dtype
