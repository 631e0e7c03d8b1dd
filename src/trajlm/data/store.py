"""The trajectory store: immutable columns of whole datasets, cut into episodes.

A store is a tuple of segments (columns that never change, often memory-mapped) and an index array
of episodes over them. Relabelling adds a column, a view is another index array, extending appends
a segment: none of them copies what is there.

Legend: E episodes of this view, M step rows, T an episode's steps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from trajlm.core.errors import DataError
from trajlm.core.spec import QUANTILE_STEP, DataSpec, Space
from trajlm.core.trajectory import Trajectory


def is_observation(name: str) -> bool:
    """True for `observations` and `observations/...`: columns that may have T+1 rows."""
    return name.split("/")[0] == "observations"


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Columns of some episodes, laid end to end; never written to again.

    `columns`: step columns (M, ...) and observation columns (M + E, ...) where
    `has_last_observation`, else (M, ...). `lengths` (E,) int64: steps of each episode.
    `seeds` (E,) int64, -1 where unknown.
    """

    columns: Mapping[str, np.ndarray]
    lengths: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    unfinished: np.ndarray
    seeds: np.ndarray
    has_last_observation: bool

    def __post_init__(self) -> None:
        steps, episodes = int(self.lengths.sum()), len(self.lengths)
        for name, column in self.columns.items():
            extra = episodes if is_observation(name) and self.has_last_observation else 0
            if len(column) != steps + extra:
                raise DataError(
                    f"column {name!r} has {len(column)} rows; episodes have {steps + extra}"
                )

    @cached_property
    def offsets(self) -> np.ndarray:
        """(E+1,) first step row of each episode."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def rows(self, name: str, episode: int) -> np.ndarray:
        """The rows of one episode in one column."""
        start, stop = int(self.offsets[episode]), int(self.offsets[episode + 1])
        if is_observation(name) and self.has_last_observation:
            start, stop = start + episode, stop + episode + 1
        return self.columns[name][start:stop]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryStore:
    """Episodes of one dataset.

    `index` (E, 2) int64: segment and episode within it. `version` rises with `extend`.
    `content_hash`: SHA-256 over the source's bytes or columns; names the dataset in results.
    """

    observation_space: Space
    action_space: Space
    segments: tuple[Segment, ...]
    index: np.ndarray
    env_id: str | None = None
    name: str = ""
    content_hash: str = ""
    version: int = 0
    source: int = 0
    metadata: Mapping[str, object] = field(default_factory=dict)

    # ---- building ---------------------------------------------------------------------------

    @classmethod
    def from_segment(
        cls, segment: Segment, *, observation_space: Space, action_space: Space, **facts: object
    ) -> TrajectoryStore:
        """A store of all episodes of one segment; `facts` are the remaining fields."""
        count = len(segment.lengths)
        index = np.stack([np.zeros(count, np.int64), np.arange(count)], axis=1)
        return cls(
            observation_space=observation_space,
            action_space=action_space,
            segments=(segment,),
            index=index,
            **facts,  # type: ignore[arg-type]
        )

    @classmethod
    def from_trajectories(
        cls,
        trajectories: Iterable[Trajectory],
        *,
        observation_space: Space,
        action_space: Space,
        **facts: object,
    ) -> TrajectoryStore:
        """A store of episodes from rollouts or arrays, in their order."""
        segment = segment_of(list(trajectories))
        facts.setdefault("content_hash", hash_columns(segment))
        return cls.from_segment(
            segment, observation_space=observation_space, action_space=action_space, **facts
        )

    def extend(self, trajectories: Sequence[Trajectory]) -> TrajectoryStore:
        """A store with the episodes appended, in O(new); its version is one higher."""
        segment = segment_of(trajectories)
        if set(segment.columns) != set(self.segments[0].columns):
            raise DataError(
                f"extend: columns {sorted(segment.columns)} differ from the store's "
                f"{sorted(self.segments[0].columns)}"
            )
        for name, column in segment.columns.items():
            old = self.segments[0].columns[name]
            if column.shape[1:] != old.shape[1:] or column.dtype != old.dtype:
                raise DataError(
                    f"extend: column {name!r} holds {column.dtype} {column.shape[1:]} a row, the "
                    f"store {old.dtype} {old.shape[1:]}"
                )
        if segment.has_last_observation != self.has_last_observation:
            raise DataError("extend: one side keeps the last observation, the other does not")
        count = len(segment.lengths)
        new = np.stack([np.full(count, len(self.segments)), np.arange(count)], axis=1)
        digest = hashlib.sha256((self.content_hash + hash_columns(segment)).encode()).hexdigest()
        return replace(
            self,
            segments=(*self.segments, segment),
            index=np.concatenate([self.index, new.astype(np.int64)]),
            version=self.version + 1,
            content_hash=digest,
        )

    def select(self, episodes: np.ndarray) -> TrajectoryStore:
        """A view of the episodes at these positions (or under a boolean mask)."""
        return replace(self, index=self.index[episodes])

    def with_column(self, name: str, values: Sequence[np.ndarray]) -> TrajectoryStore:
        """The store with a column added; `values` holds an array (M_i, ...) a segment."""
        segments = tuple(
            replace(segment, columns={**segment.columns, name: array})
            for segment, array in zip(self.segments, values, strict=True)
        )
        return replace(self, segments=segments)

    # ---- facts ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.index)

    @property
    def column_names(self) -> list[str]:
        return sorted(self.segments[0].columns)

    @property
    def has_last_observation(self) -> bool:
        return self.segments[0].has_last_observation

    @cached_property
    def lengths(self) -> np.ndarray:
        """(E,) int64 steps."""
        return self._of_episodes("lengths")

    @cached_property
    def terminated(self) -> np.ndarray:
        return self._of_episodes("terminated")

    @cached_property
    def truncated(self) -> np.ndarray:
        return self._of_episodes("truncated")

    @cached_property
    def unfinished(self) -> np.ndarray:
        """(E,) bool: the file ends inside the episode."""
        return self._of_episodes("unfinished")

    @cached_property
    def seeds(self) -> np.ndarray:
        return self._of_episodes("seeds")

    @property
    def num_steps(self) -> int:
        return int(self.lengths.sum())

    @cached_property
    def returns(self) -> np.ndarray:
        """(E,) float64 undiscounted returns, each episode summed by itself."""
        sums = []
        for segment in self.segments:
            rewards = np.asarray(segment.columns["rewards"], np.float64)
            whole = np.zeros(len(segment.lengths))
            filled = segment.lengths > 0
            if filled.any():
                whole[filled] = np.add.reduceat(rewards, segment.offsets[:-1][filled])
            sums.append(whole)
        return self._pick(sums)

    @property
    def finished(self) -> TrajectoryStore:
        """The view without unfinished episodes."""
        return self.select(~self.unfinished) if self.unfinished.any() else self

    def best(self, fraction: float) -> TrajectoryStore:
        """The view of the episodes with the best returns that hold at most `fraction` of the steps.

        As in the Decision Transformer's %BC: episodes are taken in the order of their returns until
        the next would pass the share; the best one is always there.
        """
        order = np.argsort(self.returns, kind="stable")[::-1]
        steps = np.cumsum(self.lengths[order])
        count = max(1, int((steps <= int(fraction * self.num_steps)).sum()))
        return self.select(np.sort(order[:count]))

    @cached_property
    def spec(self) -> DataSpec:
        """What a model built on this store must know."""
        finished = self.finished
        if len(finished) == 0:
            raise DataError(f"dataset {self.name!r} has no finished episode")
        returns = finished.returns
        return DataSpec(
            observation=self.observation_space,
            action=self.action_space,
            horizon=int(self.lengths.max()),
            env_id=self.env_id,
            dataset=self.name,
            data_hash=self.content_hash,
            return_min=float(returns.min()),
            return_max=float(returns.max()),
            return_mean=float(returns.mean()),
            return_quantiles=tuple(
                np.percentile(returns, np.arange(0, 101, QUANTILE_STEP)).tolist()
            ),
            expert_return=_number(self.metadata.get("ref_max_score")),
            delayed_reward=bool(self.metadata.get("delayed_reward", False)),
            has_last_observation=self.has_last_observation,
        )

    # ---- reading ----------------------------------------------------------------------------

    def rows(self, name: str, episode: int) -> np.ndarray:
        """Episode `episode`'s rows of a column: (T, ...), observations (T+1, ...) where kept."""
        segment, inner = self.index[episode]
        return np.asarray(self.segments[int(segment)].rows(name, int(inner)))

    def episode(self, episode: int) -> Trajectory:
        seed = int(self.seeds[episode])
        return Trajectory(
            columns={name: self.rows(name, episode) for name in self.column_names},
            terminated=bool(self.terminated[episode]),
            truncated=bool(self.truncated[episode]),
            unfinished=bool(self.unfinished[episode]),
            seed=None if seed < 0 else seed,
        )

    def first_rows(self, name: str) -> np.ndarray:
        """(E,) row at which each episode starts in `gather`'s numbering of this column."""
        base, starts = 0, []
        for segment in self.segments:
            own = segment.offsets[:-1] + base
            if is_observation(name) and segment.has_last_observation:
                own = own + np.arange(len(segment.lengths))
            starts.append(own)
            base += len(segment.columns[name])
        return self._pick(starts)

    def gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of a column by number, any shape: (...,) -> (..., entry)."""
        columns = [segment.columns[name] for segment in self.segments]
        if len(columns) == 1:
            return np.asarray(columns[0][rows])
        bases = np.cumsum([0] + [len(column) for column in columns])
        which = np.searchsorted(bases, rows, side="right") - 1
        result = np.empty(rows.shape + columns[0].shape[1:], columns[0].dtype)
        for number, column in enumerate(columns):
            here = which == number
            result[here] = column[rows[here] - bases[number]]
        return result

    # ---- inside -----------------------------------------------------------------------------

    def _of_episodes(self, attribute: str) -> np.ndarray:
        return self._pick([np.asarray(getattr(segment, attribute)) for segment in self.segments])

    def _pick(self, by_segment: Sequence[np.ndarray]) -> np.ndarray:
        bases = np.cumsum([0] + [len(segment.lengths) for segment in self.segments])
        rows = bases[self.index[:, 0]] + self.index[:, 1]
        return np.asarray(np.concatenate(by_segment)[rows])


def segment_of(trajectories: Sequence[Trajectory]) -> Segment:
    """Episodes laid end to end; floats become float32, other kinds stay as they are."""
    if not trajectories:
        raise DataError("no episodes")
    names = set(trajectories[0].columns)
    for number, trajectory in enumerate(trajectories):
        if set(trajectory.columns) != names:
            raise DataError(f"episode {number}: columns differ from those of episode 0")
    keeps_last = all(trajectory.has_last_observation for trajectory in trajectories)
    columns = {}
    for name in sorted(names):
        arrays = [
            t.columns[name] if keeps_last or not is_observation(name) else t.columns[name][: len(t)]
            for t in trajectories
        ]
        columns[name] = as_column(np.concatenate(arrays))
    return Segment(
        columns=columns,
        lengths=np.array([len(t) for t in trajectories], np.int64),
        terminated=np.array([t.terminated for t in trajectories], bool),
        truncated=np.array([t.truncated for t in trajectories], bool),
        unfinished=np.array([t.unfinished for t in trajectories], bool),
        seeds=np.array([-1 if t.seed is None else t.seed for t in trajectories], np.int64),
        has_last_observation=keeps_last,
    )


def _number(value: object) -> float | None:
    """A finite number of a dataset's metadata, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def as_column(array: np.ndarray) -> np.ndarray:
    """Floats as float32; integers, bool and uint8 as they are."""
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def hash_columns(segment: Segment) -> str:
    """SHA-256 over names, shapes and bytes of all columns and episode lengths."""
    digest = hashlib.sha256()
    for name in sorted(segment.columns):
        column = np.ascontiguousarray(segment.columns[name])
        digest.update(f"{name}{column.dtype}{column.shape}".encode())
        digest.update(column.tobytes())
    digest.update(np.ascontiguousarray(segment.lengths).tobytes())
    return digest.hexdigest()
