"""Windows and batches: published sampling, purity, padding, every step once in validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trajlm.core.errors import DataError
from trajlm.core.spec import Box
from trajlm.core.trajectory import Trajectory
from trajlm.data.store import TrajectoryStore
from trajlm.sequence.batch import WindowRequest
from trajlm.sequence.loader import Loader, validation_batches
from trajlm.sequence.windows import EARLY_STEPS, sample_windows, tile_windows

LENGTHS = (1, 3, 12, 30)
REQUEST = WindowRequest(length=5, columns=("observations", "actions", "rewards"))


def episodes(lengths: tuple[int, ...], *, first: int = 0) -> list[Trajectory]:
    """Every value names its episode and step: 1000 * episode + step, observations + 0.5."""
    made = []
    for number, steps in enumerate(lengths, start=first):
        marks = 1000.0 * number + np.arange(steps + 1)
        columns = {
            "observations": marks[:, None] + 0.5,
            "actions": marks[:-1, None],
            "rewards": marks[:-1],
        }
        made.append(Trajectory(columns=columns, terminated=True, truncated=False))
    return made


@pytest.fixture
def store() -> TrajectoryStore:
    return TrajectoryStore.from_trajectories(
        episodes(LENGTHS), observation_space=Box(shape=(1,)), action_space=Box(shape=(1,))
    )


def test_a_batch_is_a_pure_function_of_its_step(store: TrajectoryStore) -> None:
    first, second = (Loader(store, REQUEST, batch_size=8, seed=3) for _ in range(2))
    second.batch(0)
    a, b = first.batch(7), second.batch(7)
    assert all(torch.equal(a.columns[name], b.columns[name]) for name in REQUEST.columns)
    assert not torch.equal(a.columns["actions"], first.batch(8).columns["actions"])
    other = Loader(store, REQUEST, batch_size=8, seed=4).batch(7)
    assert not torch.equal(a.columns["actions"], other.columns["actions"])


def test_columns_line_up_and_padding_is_zero(store: TrajectoryStore) -> None:
    batch = Loader(store, REQUEST, batch_size=256, seed=0).batch(0)
    mask, actions = batch.mask, batch.actions[..., 0]
    observations = batch.columns["observations"][..., 0]
    assert torch.equal(observations[mask], actions[mask] + 0.5)
    assert torch.equal(batch.columns["rewards"][mask], actions[mask])
    assert torch.equal((actions % 1000).long()[mask], batch.timesteps[mask])
    assert (actions[~mask] == 0).all() and (observations[~mask] == 0).all()
    assert (~mask).any()
    # Padding is on the right, and a window never crosses into the next episode.
    assert (mask.long().diff(dim=1) <= 0).all()
    number = (actions // 1000).long()
    assert torch.equal(torch.where(mask, number, number[:, :1]), number[:, :1].expand_as(number))


def test_starts_are_uniform_over_all_steps() -> None:
    lengths = np.array(LENGTHS)
    windows = sample_windows(lengths, batch_size=200_000, seed=0, step=0, rank=0, version=0)
    share = np.bincount(windows.episode, minlength=4) / 200_000
    assert np.allclose(share, lengths / lengths.sum(), atol=5e-3)
    starts = np.bincount(windows.start[windows.episode == 3], minlength=30)
    assert len(starts) == 30 and starts.min() > 0.9 * starts.mean()


def test_a_share_of_windows_starts_early() -> None:
    """Of a length of 200 a tenth starts early in any case; the short episode is early altogether."""
    lengths = np.array([200, 200, 8])
    drawn = {"batch_size": 100_000, "seed": 0, "step": 0, "rank": 0, "version": 0}
    windows = sample_windows(lengths, **drawn, early_share=0.25)
    whole = windows.episode < 2
    early = windows.start[whole] < EARLY_STEPS
    assert np.mean(early) == pytest.approx(0.25 + 0.75 * 0.1, abs=5e-3)
    counts = np.bincount(windows.start[whole][early], minlength=EARLY_STEPS)
    assert counts.min() > 0.9 * counts.mean()
    assert (windows.start < lengths[windows.episode]).all()
    plain = sample_windows(lengths, **drawn)
    assert np.array_equal(windows.episode, plain.episode)
    assert np.mean(windows.start == plain.start) > 0.7


def test_ranks_split_one_draw(store: TrajectoryStore) -> None:
    whole = sample_windows(store.lengths, batch_size=8, seed=1, step=2, rank=0, version=0)
    halves = [
        sample_windows(store.lengths, batch_size=4, seed=1, step=2, rank=rank, version=0)
        for rank in (0, 1)
    ]
    assert np.array_equal(whole.start, np.concatenate([half.start for half in halves]))


def test_validation_sees_every_step_once(store: TrajectoryStore) -> None:
    seen = torch.cat(
        [b.actions[..., 0][b.mask] for b in validation_batches(store, REQUEST, batch_size=3)]
    )
    assert sorted(seen.tolist()) == sorted(
        1000.0 * e + t for e, steps in enumerate(LENGTHS) for t in range(steps)
    )


def test_validation_is_limited_and_constant(store: TrajectoryStore) -> None:
    runs = [
        torch.cat(
            [b.actions for b in validation_batches(store, REQUEST, batch_size=2, max_batches=2)]
        )
        for _ in range(2)
    ]
    assert len(runs[0]) == 4 and torch.equal(runs[0], runs[1])


def test_tiles_of_a_length_that_divides() -> None:
    windows = tile_windows(np.array([5, 10]), length=5)
    assert windows.episode.tolist() == [0, 1, 1] and windows.start.tolist() == [0, 0, 5]


def test_an_extended_store_is_sampled_across_segments(store: TrajectoryStore) -> None:
    grown = store.extend(episodes((20,), first=4))
    batch = Loader(grown, REQUEST, batch_size=512, seed=0).batch(0)
    assert grown.version == 1
    newest = batch.actions[..., 0] >= 4000
    assert newest.any()
    assert torch.equal(
        batch.columns["observations"][..., 0][newest], batch.actions[..., 0][newest] + 0.5
    )


def test_a_missing_column_is_named(store: TrajectoryStore) -> None:
    request = WindowRequest(length=2, columns=("returns_to_go",))
    with pytest.raises(DataError, match="no column 'returns_to_go'"):
        Loader(store, request, batch_size=1, seed=0)


def test_next_observations_are_those_of_the_step_after(store: TrajectoryStore) -> None:
    request = WindowRequest(length=5, columns=("observations", "actions"), next_observations=True)
    batch = Loader(store, request, batch_size=256, seed=0).batch(0)
    after, mask = batch.columns["next_observations"][..., 0], batch.mask
    assert torch.equal(after[mask], batch.actions[..., 0][mask] + 1.5)
    assert (after[~mask] == 0).all() and (~mask).any()
    assert batch.next_observations is batch.columns["next_observations"]


def test_without_a_last_observation_the_one_before_stands_in(store: TrajectoryStore) -> None:
    whole = [store.episode(number) for number in range(len(store))]
    cut = [
        replace(t, columns={**t.columns, "observations": t.columns["observations"][:-1]})
        for t in whole
    ]
    cut_store = TrajectoryStore.from_trajectories(
        cut, observation_space=Box(shape=(1,)), action_space=Box(shape=(1,))
    )
    request = WindowRequest(length=1, columns=("observations", "actions"), next_observations=True)
    batch = Loader(cut_store, request, batch_size=256, seed=0).batch(0)
    after, actions = batch.columns["next_observations"][..., 0], batch.actions[..., 0]
    number = (actions // 1000).long()
    last = batch.timesteps == torch.tensor(LENGTHS)[number] - 1
    assert last.any() and (~last).any()
    assert torch.equal(after, torch.where(last, actions + 0.5, actions + 1.5))
