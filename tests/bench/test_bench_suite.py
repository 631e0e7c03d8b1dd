"""The benchmarks run and measure both sides; their figures are never asserted."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from trajlm.algorithms.decision_transformer.model import Model
from trajlm.bench.data import noise_store, sampling_seconds
from trajlm.bench.timing import Comparison, compare
from trajlm.bench.training import CONFIG, SPEC, normalized, our_update, random_batch
from trajlm.cli.bench import NAMES, QUICK
from trajlm.sequence.loader import Loader
from trajlm.training.config import TrainingConfig


def test_the_command_offers_the_suite() -> None:
    from trajlm.bench.suite import SUITE

    assert tuple(SUITE) == NAMES and set(QUICK) < set(NAMES)


def noting(file: Path, name: str) -> Callable[[], object]:
    """Work that notes its name and its process."""

    def work() -> None:
        with file.open("a") as lines:
            lines.write(f"{name} {os.getpid()}\n")

    return work


def test_pairs_are_taken_in_turn_by_two_processes(tmp_path: Path) -> None:
    file = tmp_path / "order"
    result = compare(partial(noting, file, "ours"), partial(noting, file, "theirs"), rounds=2)
    order = [line.split() for line in file.read_text().splitlines()]
    assert [name for name, _ in order] == ["ours"] * 2 + ["theirs"] * 2 + ["ours", "theirs"] * 2
    assert len({process for _, process in order} | {str(os.getpid())}) == 3
    assert len(result.ours) == len(result.theirs) == 2


def failing() -> Callable[[], object]:
    raise ValueError("on purpose")


def test_a_side_that_fails_ends_the_comparison() -> None:
    with pytest.raises(RuntimeError, match="ended with"):
        compare(partial(noting, Path("/none/such"), "ours"), partial(int), rounds=1)
    with pytest.raises(RuntimeError, match="ended with 1"):
        compare(failing, failing, rounds=1)


def test_the_ratio_says_how_many_times_faster_we_are() -> None:
    assert Comparison(ours=(1.0, 2.0, 4.0), theirs=(3.0, 2.0, 8.0)).ratio == 2.0


def test_our_update_is_the_trainers_and_learns() -> None:
    torch.manual_seed(0)
    batch = random_batch(SPEC)
    update = our_update(
        Model.build(CONFIG, SPEC, {}).train(),
        TrainingConfig(learning_rate=1e-3, warmup_steps=0, precision="float32"),
    )
    losses = [update(batch, step).item() for step in range(6)]
    assert losses[-1] < losses[0]


def test_both_sides_are_fed_the_same_states() -> None:
    store = noise_store(2_000)
    prepared = Model.prepare(CONFIG, store)
    model = Model.build(CONFIG, prepared.store.spec, prepared.fitted)
    batch = Loader(prepared.store, Model.windows(CONFIG, store.spec), batch_size=256, seed=0).batch(
        0
    )
    states = normalized(batch, model).columns["observations"][batch.mask].numpy()
    assert np.allclose(states.mean(0), 0.0, atol=0.1) and np.allclose(states.std(0), 1.0, atol=0.1)
    assert sampling_seconds(transitions=2_000, batches=2) > 0


def test_the_published_loss_equals_ours_on_the_same_predictions() -> None:
    pytest.importorskip("transformers")
    from trajlm.bench.baselines import transformers_loss, transformers_model

    model = transformers_model(observation_size=17, action_size=6, horizon=1000).eval()
    batch = random_batch(SPEC)
    loss = transformers_loss(model, batch, return_scale=1000.0)
    assert 0.1 < loss.item() < 1.0  # actions are uniform in [-1, 1], an untrained model says 0
